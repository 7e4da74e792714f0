"""The demonstration: real sounds, a really trained model, a real daemon. Its checkpoint builder serves the tests."""
