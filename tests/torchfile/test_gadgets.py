"""Names that can act: refused and named, whatever the operation that asks for them, and nothing of them runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sda_daemon.errors import ModelFileError, UnsafeCheckpointError
from sda_daemon.models.checkpoint import read_checkpoint
from sda_daemon.models.header import read_model_header
from sda_daemon.models.inspection import inspect_file
from sda_daemon.torchfile.globals import NameKind, modern_name
from tests.torchfile.hostile import text, write_pickle

_LISTED = """
    os.system posix.system nt.system os.popen os.execv os.spawnl os.remove os.kill os.putenv
    subprocess.Popen subprocess.run subprocess.call subprocess.check_output subprocess.getoutput commands.getoutput
    builtins.eval builtins.exec builtins.compile builtins.__import__ builtins.open builtins.getattr builtins.setattr
    builtins.breakpoint builtins.input builtins.map builtins.filter builtins.globals builtins.vars builtins.print
    builtins.delattr builtins.memoryview builtins.super __builtin__.eval __builtin__.apply __builtin__.execfile
    importlib.import_module importlib.reload importlib.machinery.SourceFileLoader runpy.run_path runpy.run_module
    code.interact code.InteractiveInterpreter codeop.compile_command pdb.run bdb.Bdb.run timeit.timeit cProfile.run
    profile.run trace.Trace.run doctest.debug_script pydoc.pipepager pty.spawn platform.popen webbrowser.open
    shutil.rmtree shutil.move tempfile.mktemp pathlib.Path.unlink pathlib.Path.write_text io.open io.FileIO
    codecs.open fileinput.FileInput linecache.getline zipfile.ZipFile tarfile.open sqlite3.connect socket.socket
    socket.create_connection urllib.request.urlopen http.client.HTTPConnection ftplib.FTP smtplib.SMTP telnetlib.Telnet
    ssl.wrap_socket asyncio.create_subprocess_shell multiprocessing.Process multiprocessing.util.spawnv_passfds
    threading.Thread concurrent.futures.ThreadPoolExecutor ctypes.CDLL ctypes.cdll.LoadLibrary _ctypes.dlopen
    pickle.loads pickle.Unpickler _pickle.loads marshal.loads shelve.open copy.deepcopy types.FunctionType
    types.CodeType
    types.MethodType functools.partial functools.reduce operator.attrgetter operator.methodcaller operator.itemgetter
    operator.call copyreg._reconstructor copyreg.add_extension copyreg.__newobj__ atexit.register
    signal.signal signal.alarm sys.exit sys.settrace sys.setrecursionlimit gc.get_objects inspect.getattr_static
    logging.config.dictConfig logging.FileHandler logging.handlers.SocketHandler uuid._get_command_stdout
    imp.load_source uu.decode pipes.Template cgitb.handler mailcap.findmatch nntplib.NNTP popen2.popen3 imghdr.what
    binhex.hexbin asyncore.dispatcher _interpreters.exec _winapi.CreateProcess _posixsubprocess.fork_exec
    ensurepip.bootstrap venv.create pip.main pip._internal.main setuptools.setup distutils.spawn.spawn
    idlelib.pyshell.ModifiedInterpreter lib2to3.pgen2.pgen.ParserGenerator zipimport.zipimporter site.main
    weakref.finalize contextlib.ExitStack string.Formatter builtins.type operator.getitem
    torch.load torch.hub.load torch.hub.load_state_dict_from_url torch.serialization.load torch.jit.load
    torch.jit.unsupported_tensor_ops.execWrapper torch.utils.cpp_extension.load torch.utils.cpp_extension.load_inline
    torch.utils._config_module.load_config torch.utils._config_module.ConfigModule.load_config
    torch.utils.collect_env.run torch.utils.bottleneck.__main__.run_cprofile torch._inductor.codecache.compile_file
    torch._dynamo.guards.GuardBuilder.get torch.fx.graph_module._deserialize_graph_module
    torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression torch.storage._load_from_bytes_from_x
    torch.distributed.rpc.internal._run_function torch.utils.data.datapipes.utils.decoder.basichandlers
    torch.testing._internal.common_utils.runWithPytorchAPIUsageStderr torch.multiprocessing.spawn
    torch.nn.functional.os.system torch.nn.modules.module.torch.hub.load torch.optim.lr_scheduler.types.FunctionType
    torch.ops.load_library torch.classes.load_library torch.package.PackageImporter
    numpy.load numpy.fromfile numpy.memmap.tofile numpy.testing._private.utils.runstring numpy.f2py.compile
    numpy.distutils.exec_command.exec_command numpy.lib.npyio.load numpy.ctypeslib.load_library
    numpy.core.numeric.os.system numpy.frompyfunc numpy.vectorize numpy.savetxt
"""
NAMES = _LISTED.split()
ARGUMENT = text(b"touch went-off")
MADE = {
    "GLOBAL": lambda module, name: b"\x80\x02c%b\n%b\n" % (module, name) + ARGUMENT + b"\x85R.",
    "STACK_GLOBAL": lambda module, name: b"\x80\x04%b%b\x93%b\x85R." % (text(module), text(name), ARGUMENT),
    "INST": lambda module, name: b"(" + ARGUMENT + b"i%b\n%b\n." % (module, name),
}  # fmt: skip


def gadget(name: str, operation: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return MADE[operation](module.encode(), attribute.encode())


def within_a_checkpoint(pickled: bytes) -> bytes:
    """A dict that has the gadget's result in a part that is not kept."""
    head = pickled[:2] if pickled.startswith(b"\x80") else b""
    return head + b"}(" + text(b"model_state_dict") + b"}" + text(b"extra") + pickled[len(head) : -1] + b"u."


@pytest.mark.parametrize("operation", MADE)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_can_act_is_refused(name: str, operation: str, tmp_path: Path) -> None:
    """By all readers, with the name as it is called today; at the top, and in what would not be kept."""
    said = f"wants to call {modern_name(name)}; nothing of it was run. Do not trust where this file came from"
    for pickled in (gadget(name, operation), within_a_checkpoint(gadget(name, operation))):
        path = write_pickle(tmp_path / "x.pt", pickled)
        with pytest.raises(UnsafeCheckpointError) as refused:
            read_checkpoint(path)
        assert str(refused.value) == f"{path} {said}"
        with pytest.raises(ModelFileError) as no_model:
            read_model_header(path)
        assert str(no_model.value) == f"{path} {said}"
        assert inspect_file(path).names_of(NameKind.REFUSED) == [name]


def test_a_function_that_is_only_named_is_refused(tmp_path: Path) -> None:
    """Also one that is harmless where it is called with the right thing."""
    for name in ("builtins.getattr", "functools.partial", "os.system"):
        module, _, attribute = name.rpartition(".")
        path = write_pickle(tmp_path / "x.pt", b"\x80\x02}" + text(b"x") + f"c{module}\n{attribute}\ns.".encode())
        with pytest.raises(UnsafeCheckpointError, match=r"wants to call"):
            read_checkpoint(path)


GETATTRS = {
    "of what can act": b"cos\nsystem\n" + text(b"__call__") + b"\x86R",
    "of something foreign, special": b"capp\nThing\n" + text(b"__globals__") + b"\x86R",
    "of a dict": b"}" + text(b"update") + b"\x86R",
    "of a text": text(b"x") + text(b"format") + b"\x86R",
    "with a default": b"capp\nThing\n" + text(b"x") + b"N\x87R",
    "with no name": b"capp\nThing\nK\x05\x86R",
    "with a path": b"capp\nThing\n" + text(b"a.b") + b"\x86R",
    "of a chain": b"capp\nThing\n" + text(b"a") + b"\x86R" + text(b"__class__") + b"\x86R",
}


@pytest.mark.parametrize("case", GETATTRS)
def test_getattr_of_anything_else_is_refused(case: str, tmp_path: Path) -> None:
    """Only an ordinary attribute of something foreign is a stand-in."""
    call = GETATTRS[case]
    if case == "of a chain":
        call = call.replace(text(b"__class__"), b"q\x010cbuiltins\ngetattr\nh\x01" + text(b"__class__"))
    path = write_pickle(tmp_path / "x.pt", b"\x80\x02cbuiltins\ngetattr\n" + call + b".")
    with pytest.raises(UnsafeCheckpointError, match=r"wants to call (builtins\.getattr|posix\.system|os\.system)"):
        read_checkpoint(path)


AUDITED = """
import sys
from pathlib import Path
from sda_daemon.models.checkpoint import read_checkpoint
from sda_daemon.models.header import read_model_header
from sda_daemon.models.inspection import inspect_file
from sda_daemon.errors import SdaError
import encodings.idna, encodings.utf_32
ACTS = ("exec", "compile", "import", "pickle.find_class", "marshal.loads", "ctypes.dlopen")
ROOMS = ("os.", "subprocess.", "socket.", "shutil.", "urllib.", "webbrowser.", "pty.", "code.")
seen = []
def hook(event, args):
    if event in ACTS or event.startswith(ROOMS):
        seen.append((event, str(args)[:80]))
    if event == "open" and args[1] not in ("r", "rb", None):
        seen.append((event, str(args)[:80]))
paths = sorted(Path(sys.argv[1]).iterdir())
for look in (read_checkpoint, read_model_header, inspect_file):  # once, for what is imported late
    try:
        look(paths[0])
    except SdaError:
        pass
sys.addaudithook(hook)
for path in paths:
    for look in (read_checkpoint, read_model_header, inspect_file):
        try:
            look(path)
        except SdaError:
            pass
sys.exit(repr(seen) if seen else 0)
"""


def test_the_interpreter_notices_nothing(tmp_path: Path) -> None:
    """No import, no code, no process, no file opened for writing: its own audit events say so."""
    folder = tmp_path / "files"
    folder.mkdir()
    count = 0
    for name in NAMES:
        for operation in MADE:
            write_pickle(folder / f"{count:04}.pt", gadget(name, operation))
            count += 1
    assert count >= 219
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, folder], check=False, capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "went-off").exists()
