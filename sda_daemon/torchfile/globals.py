"""Judges the names that a pickle would import: which only hold values, and which can act. Pure.

A name of the standard library, of torch or of numpy is refused unless it is known to do nothing but hold a value. What
is not installed here, or belongs to others, is never imported: an inert stand-in takes its place. Some names are
harmless or not by what they are called with (`getattr`): `CONDITIONAL` lists them, the unpickler judges the call.
"""

from __future__ import annotations

import _compat_pickle
import builtins
import re
import sys
from enum import StrEnum
from functools import lru_cache

EMPTY_BYTES = "builtins.bytes"
"""What pickles of protocol 2 call, without arguments, for no bytes: every array without elements has some."""
ENCODE = "_codecs.encode"
"""What pickles of protocol 2 call to make bytes of a text, in one of `LATIN_1`."""
LATIN_1 = ("latin1", "latin-1")
BYTES_FUNCTIONS = frozenset({ENCODE, EMPTY_BYTES, "builtins.bytearray"})
GETATTR = "builtins.getattr"
PARTIAL = "functools.partial"
RECONSTRUCTOR = "copyreg._reconstructor"
NEW_OBJECT = "copyreg.__newobj__"
NEW_OBJECT_EX = "copyreg.__newobj_ex__"
COMPILE = "re._compile"
GET_ITEM = "operator.getitem"
TYPE = "builtins.type"
REDUCE = "functools.reduce"
CONDITIONAL = frozenset({GETATTR, PARTIAL, RECONSTRUCTOR, NEW_OBJECT, NEW_OBJECT_EX, COMPILE, GET_ITEM, TYPE, REDUCE})
"""Names that honest pickles call with certain things, and that could act on others."""

SAFE_NAMES = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "collections.defaultdict",
        ENCODE,
        "builtins.set",
        "builtins.frozenset",
        "builtins.complex",
        "builtins.bytearray",
        EMPTY_BYTES,
    }
)
"""They build plain values, or are read as such."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PURE = (
    "abs all any ascii bin callable chr divmod hash hex isinstance issubclass iter len max min oct ord pow round "
    "sorted sum"
)
# Of each module of the standard library, the classes (and functions that only compute) which checkpoints really have.
_VALUES = {
    "builtins": _words(
        "int float str bool list tuple dict object range slice enumerate reversed zip Ellipsis NotImplemented NoneType "
        f"{_PURE}"
    )
    | {name for name, thing in vars(builtins).items() if isinstance(thing, type) and issubclass(thing, BaseException)},
    "abc": _words("ABC ABCMeta"),
    "argparse": _words("Namespace"),
    "array": _words("array _array_reconstructor"),
    "calendar": _words("Calendar"),
    "collections.abc": _words(
        "Callable Iterable Iterator Mapping MutableMapping Sequence Set Hashable _CallableGenericAlias"
    ),
    "configparser": _words(
        "ConfigParser RawConfigParser SectionProxy ConverterMapping BasicInterpolation Interpolation"
    ),
    "contextlib": _words("nullcontext"),
    "collections": _words("deque ChainMap UserDict UserList UserString"),
    "dataclasses": _words("Field _MISSING_TYPE _FIELD_BASE _HAS_DEFAULT_FACTORY_CLASS"),
    "datetime": _words("date datetime time timedelta timezone tzinfo"),
    "decimal": _words(
        "Decimal Context DecimalTuple Clamped DivisionByZero FloatOperation Inexact InvalidOperation Overflow Rounded "
        "Subnormal Underflow DivisionUndefined DivisionImpossible InvalidContext ConversionSyntax"
    ),
    "enum": _words("Enum IntEnum StrEnum Flag IntFlag ReprEnum FlagBoundary EnumType EnumMeta"),
    "fractions": _words("Fraction"),
    "http": _words("HTTPStatus HTTPMethod"),
    "inspect": _words("Signature Parameter _ParameterKind _empty"),
    "io": _words("BytesIO StringIO"),
    "ipaddress": _words("IPv4Address IPv6Address IPv4Network IPv6Network IPv4Interface IPv6Interface"),
    "itertools": _words("count repeat cycle chain islice accumulate product permutations combinations"),
    "logging": _words("getLogger Logger RootLogger LogRecord Formatter PercentStyle Filter"),
    "operator": _words("add sub mul truediv floordiv mod neg pos lt le gt ge eq ne and_ or_ xor not_"),
    "optparse": _words("Values"),
    "os": _words("stat_result terminal_size uname_result times_result"),
    "posix": _words("stat_result terminal_size uname_result times_result"),
    "resource": _words("struct_rusage"),
    "platform": _words("uname_result"),
    "random": _words("Random"),
    "re": _words("Pattern RegexFlag"),
    "signal": _words("Signals"),
    "socket": _words("AddressFamily SocketKind AddressInfo"),
    "ssl": _words("TLSVersion VerifyMode VerifyFlags"),
    "statistics": _words("NormalDist"),
    "string": _words("Template"),
    "struct": _words("Struct"),
    "subprocess": _words("CompletedProcess"),
    "time": _words("struct_time time perf_counter monotonic process_time"),
    "traceback": _words("StackSummary FrameSummary TracebackException"),
    "types": _words("SimpleNamespace NoneType EllipsisType NotImplementedType GenericAlias UnionType MappingProxyType"),
    "urllib.parse": _words("ParseResult SplitResult DefragResult ParseResultBytes SplitResultBytes"),
    "uuid": _words("UUID SafeUUID"),
    "zoneinfo": _words("ZoneInfo ZoneInfo._unpickle"),
    "pathlib": _words("Path PurePath PosixPath PurePosixPath WindowsPath PureWindowsPath"),
}
_ALIASES = {
    "_collections": "collections",
    "_datetime": "datetime",
    "_decimal": "decimal",
    "_functools": "functools",
    "_io": "io",
    "_collections_abc": "collections.abc",
    "_operator": "operator",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_random": "random",
    "_struct": "struct",
    "pathlib._local": "pathlib",
    "zoneinfo._zoneinfo": "zoneinfo",
}
"""Where some versions of Python have what others have elsewhere."""
# What the library of another version of Python has is judged alike: the file may have been made for that.
_OF_OTHER_VERSIONS = _words(
    "aifc asynchat asyncore audioop binhex cgi cgitb chunk compression crypt ensurepip idlelib profiling turtledemo "
    "nturl2path venv __hello__ __phello__ _testbuffer _testcapi _testclinic _testimportmultiple _testinternalcapi "
    "_testlimitedcapi _testmultiphase _testsinglephase _ctypes_test _xxtestfuzz xxlimited xxlimited_35 xxsubtype "
    "_types crypt distutils imghdr imp lib2to3 mailcap msilib nis nntplib nt "
    "ossaudiodev pipes popen2 smtpd sndhdr spwd sunau telnetlib uu xdrlib annotationlib _android_support _bootlocale "
    "_bootsubprocess _colorize _crypt _hmac _interpchannels _interpqueues _interpreters _ios_support _msi "
    "_opcode_metadata _py_warnings _pydatetime _pylong _pyrepl _remote_debugging _sha2 _sha256 _sha512 _sitebuiltins "
    "_spwd _suggestions _sysconfig _winapi _wmi _zstd"
)
STANDARD_MODULES = sys.stdlib_module_names | _OF_OTHER_VERSIONS | {"pip", "setuptools", "pkg_resources"}
"""Modules of the standard library of this Python, those of others in which something acts, and of what installs
packages."""
_TESTS_OF_PYTHON = re.compile(r"test\.(?:support|libregrtest|regrtest|test_support|script_helper|pythoninfo)\b.*")
"""Of the package of Python's own tests, what acts; `test` may as well be somebody's script, or a package of theirs."""
_MOST_PARTS_OF_A_MODULE = 3
_PURE_MODULES = {
    "math": re.compile(r"\w+"),
    "cmath": re.compile(r"\w+"),
    "numbers": re.compile(r"\w+"),
    "typing": re.compile(r"(?!ForwardRef)[A-Z]\w*(?:\.[A-Za-z]\w*)?|cast|overload|final"),
    # Members of enums, as some versions of Python write them.
    "re": re.compile(r"[A-Z]+"),
    "signal": re.compile(r"SIG[A-Z0-9_]+"),
    "socket": re.compile(r"(?:AF|SOCK|MSG|AI)_[A-Z0-9_]+"),
    "ssl": re.compile(r"(?:PROTOCOL|CERT|VERIFY|OP)_[A-Za-z0-9_]+"),
}
"""Modules in which names of a form only compute or hold values."""
_EXCEPTION = re.compile(r"(?:[A-Za-z]\w*\.)?[A-Z]\w*(?:Error|Exception|Warning|Expired|Interrupt)|error|Empty|Full")
"""What modules of the standard library call their exceptions, which hold a message."""

NUMPY_NAMES = ("_reconstruct", "scalar", "ndarray", "dtype", "_frombuffer")
_NUMPY_VALUES = re.compile(
    r"numpy\.(?:"
    r"dtypes\.\w+DType"
    r"|(?:bool|int|uint|float|complex|str|bytes|void|object|datetime|timedelta)(?:\d+|_)?"
    r"|bool|half|single|double|longdouble|[cu]?byte|u?short|u?intc|u?intp|u?long(?:long)?|[cs]?single|csingle|cdouble"
    r"|clongdouble|str_|bytes_|generic|number|integer|signedinteger|unsignedinteger|inexact|floating|complexfloating"
    r"|character|flexible|record|recarray|matrix|poly1d|rec\.recarray|rec\.record|matrixlib\.defmatrix\.matrix"
    r"|_?core\.records\.(?:recarray|record)|_?core\._ufunc_reconstruct|_?core\._internal\._ctypes|_?core\.memmap\.memmap"
    r"|memmap|random\.(?:mtrand\.)?RandomState|random\._generator\.Generator|random\.Generator"
    r"|random\._pickle\.__(?:randomstate|generator|bit_generator)_ctor"
    r"|random\._?(?:mt19937\.MT19937|pcg64\.PCG64(?:DXSM)?|philox\.Philox|sfc64\.SFC64)"
    r"|random\.(?:MT19937|PCG64(?:DXSM)?|Philox|SFC64|SeedSequence)|random\.(?:_?)bit_generator\.\w*SeedSequence"
    r"|ma\.(?:core\.)?(?:MaskedArray|MaskedConstant|_mareconstruct)"
    r"|(?:lib\.)?(?:polynomial|_polynomial_impl)\.poly1d|polynomial\.\w+\.[A-Z]\w*"
    r"|(?:mean|median|max|min|amax|amin|sum|prod|std|var|percentile|quantile|absolute|abs|sqrt|exp|log|log2|log10|log1p"
    r"|expm1|sin|cos|tan|tanh|clip|square|nanmean|nanmedian|nanmax|nanmin|maximum|minimum|add|multiply|subtract|divide"
    r"|sign|power|isfinite|isnan|isinf|arange|finfo|iinfo|linalg\.LinAlgError)"
    r")"
)

TENSOR_FUNCTIONS = {
    "torch._utils._rebuild_tensor": "",
    "torch._utils._rebuild_tensor_v2": "",
    "torch._utils._rebuild_tensor_v3": "",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data (on the meta device)",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of a special device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of a special device",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a special class",
}
"""Functions that pickles call to make a tensor, to what it is in words where it is not a plain one."""
META_FUNCTION = "torch._utils._rebuild_meta_tensor_no_storage"
PARAMETER_FUNCTIONS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
SUBCLASS_FUNCTIONS = ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type")
WRAPPER_FUNCTIONS = (*PARAMETER_FUNCTIONS, *SUBCLASS_FUNCTIONS)
_TORCH_FUNCTIONS = frozenset(
    {
        *TENSOR_FUNCTIONS,
        *WRAPPER_FUNCTIONS,
        "torch.serialization._get_layout",
        "torch.device",
        "torch.Size",
        "torch.Tensor",
        "torch.Generator",
        "torch.dtype",
        "torch.layout",
        "torch.memory_format",
        "torch.torch_version.TorchVersion",
        "torch.finfo",
        "torch.iinfo",
    }
)
_MEMORY_FORMATS = r"(?:strided|sparse_\w+|jagged|contiguous_format|channels_last\w*|preserve_format)"
# Rooms of torch in which nothing acts beyond numbers: optimizers, schedulers, layers, losses, distributions, scalers.
_TORCH_ROOMS = re.compile(
    r"torch\.(?:optim|amp|cuda\.amp|distributions|nn\.(?:modules|functional|init|parameter|utils)|utils\.swa_utils)"
    r"(?:\.\w+)+"
)
_TORCH_CLASSES = re.compile(
    r"torch\.(?:nn|ao\.(?:nn|quantization)|quantization|utils\.data(?!\.datapipes)|return_types|nested|_tensor|distributed"
    r"\.(?:tensor|_tensor|fsdp|device_mesh))(?:\._?[a-z0-9][A-Za-z0-9_]*)*\._{0,2}[A-Z]\w*(?:\.\w+)*"
)
_TORCH_VALUES = re.compile(
    r"torch\.(?:(?:cuda\.|sparse\.|cuda\.sparse\.)?[A-Z]\w*(?:Storage|Tensor)|storage\.(?:Untyped|Typed|_LegacyStorage)\w*"
    r"|(?:u?int|q?u?int|float|complex|bfloat|bits)\d\w*|bool|half|float|double|long|short|int|per_\w+"
    rf"|return_types\.\w+|utils\.data\._utils\.collate\.default_\w+|utils\.hooks\.\w*Handle|OutOfMemoryError"
    rf"|autograd\.grad_mode\.\w+|{_MEMORY_FORMATS}|_utils\.torch\.{_MEMORY_FORMATS}|_C\._nn\.\w+|_C\.Generator|_C\._VariableFunctions(?:Class)?(?:\.\w+)?"
    r"|tanh|relu|sigmoid|softmax|exp|log|log1p|expm1|sqrt|sin|cos|abs|mean|sum|max|min|clamp|square|add|mul|sub|div|erf"
    r"|rsqrt|pow)"
)


class NameKind(StrEnum):
    """What becomes of a name."""

    SAFE = "safe"
    """It only builds plain values."""
    TORCH = "torch"
    """Of torch, and makes tensors or only holds values."""
    NUMPY = "numpy"
    """Of numpy, and makes arrays or only holds values."""
    FOREIGN = "foreign"
    """Not installed, or only holding values: an inert stand-in takes its place."""
    REFUSED = "refused"
    """It can act; a file that names it is not read."""


def kind_of_name(name: str) -> NameKind:
    """Tell what becomes of a name such as `posix.system` or `collections.OrderedDict`, as it is called today.

    A conditional name is judged as if it was called with what honest pickles call it with.
    """
    return _kind_of(modern_name(name))


@lru_cache(maxsize=1024)
def modern_name(name: str) -> str:
    """The name that a pickle of protocol 2 means: it may be written as in Python 2 (`commands` for `subprocess`)."""
    module, _, attribute = name.rpartition(".")
    if (module, attribute) in _compat_pickle.NAME_MAPPING:
        module, attribute = _compat_pickle.NAME_MAPPING[module, attribute]
    module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    return f"{_ALIASES.get(module, module)}.{attribute}"


@lru_cache(maxsize=1024)
def _kind_of(name: str) -> NameKind:
    root = name.partition(".")[0]
    if name in SAFE_NAMES:
        return NameKind.SAFE
    if root == "torch":
        return NameKind.TORCH if _is_known_of_torch(name) else NameKind.REFUSED
    if root == "numpy":
        is_known = name.rpartition(".")[2] in NUMPY_NAMES or _NUMPY_VALUES.fullmatch(name)
        return NameKind.NUMPY if is_known else NameKind.REFUSED
    if _TESTS_OF_PYTHON.fullmatch(name):
        return NameKind.REFUSED
    if name in CONDITIONAL or root not in STANDARD_MODULES or _only_holds_values(name):
        return NameKind.FOREIGN
    return NameKind.REFUSED


def _is_known_of_torch(name: str) -> bool:
    if name in _TORCH_FUNCTIONS or _TORCH_VALUES.fullmatch(name):
        return True
    inner = name.split(".")[1:]
    if "torch" in inner or any(part in STANDARD_MODULES for part in inner):
        return False  # from one module to what it has imported: `torch.nn.functional.os.system`
    return bool(_TORCH_ROOMS.fullmatch(name) or _TORCH_CLASSES.fullmatch(name))


def _only_holds_values(name: str) -> bool:
    parts = name.split(".")
    for count in range(1, min(len(parts), _MOST_PARTS_OF_A_MODULE + 1)):
        module, rest = ".".join(parts[:count]), ".".join(parts[count:])
        if rest in _VALUES.get(module, ()):
            return True
        if module in _PURE_MODULES and _PURE_MODULES[module].fullmatch(rest):
            return True
        if _EXCEPTION.fullmatch(rest):
            return True
    return False
