//! Which Python class the type of an error names.

use super::spec::MODULE;

/// Module and name of the class that a client of Celery builds from this type.
///
/// Celery looks a class up by module and name among the modules that the client has loaded, and makes one of that name
/// where it finds none (`exception_to_python` in `celery/backends/base.py`). So the last part of a dotted name is the
/// class, the rest its module. A name without a dot is Python's own exception of that name, if there is one.
///
/// `SystemExit` and the like are never Python's own: raised in a client, they would end it. Neither is what is in
/// `builtins` and no exception, for which Celery raises `SecurityError`.
pub(super) fn class_of(kind: &str) -> (&str, &str) {
    let (module, name) = kind.rsplit_once('.').unwrap_or(("", kind));
    match module {
        "" | BUILTINS if OWN.contains(&name) => (BUILTINS, name),
        "" | BUILTINS => (MODULE, name),
        _ => (module, name),
    }
}

const BUILTINS: &str = "builtins";

/// The subclasses of `Exception` in the `builtins` of Python 3.10 to 3.13 that programs raise.
const OWN: [&str; 46] = [
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "BlockingIOError",
    "BrokenPipeError",
    "BufferError",
    "ChildProcessError",
    "ConnectionAbortedError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "EOFError",
    "Exception",
    "FileExistsError",
    "FileNotFoundError",
    "FloatingPointError",
    "IOError",
    "ImportError",
    "IndexError",
    "InterruptedError",
    "IsADirectoryError",
    "KeyError",
    "LookupError",
    "MemoryError",
    "ModuleNotFoundError",
    "NameError",
    "NotADirectoryError",
    "NotImplementedError",
    "OSError",
    "OverflowError",
    "PermissionError",
    "ProcessLookupError",
    "RecursionError",
    "ReferenceError",
    "RuntimeError",
    "StopIteration",
    "SyntaxError",
    "SystemError",
    "TimeoutError",
    "TypeError",
    "UnboundLocalError",
    "UnicodeDecodeError",
    "UnicodeEncodeError",
    "UnicodeError",
    "ValueError",
    "ZeroDivisionError",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_keeps_its_type_for_python_clients() {
        for (kind, class) in [
            ("ValueError", ("builtins", "ValueError")),
            ("builtins.ValueError", ("builtins", "ValueError")),
            ("openai.RateLimitError", ("openai", "RateLimitError")),
            ("redis.exceptions.ConnectionError", ("redis.exceptions", "ConnectionError")),
            ("NoStock", ("crewjob.worker", "NoStock")),
        ] {
            assert_eq!(class_of(kind), class, "{kind}");
        }
    }

    #[test]
    fn no_type_ends_a_client_or_is_none_of_an_exception() {
        for kind in ["SystemExit", "KeyboardInterrupt", "BaseException", "int"] {
            assert_eq!(class_of(kind), (MODULE, kind));
            assert_eq!(class_of(&format!("builtins.{kind}")), (MODULE, kind));
        }
    }
}
