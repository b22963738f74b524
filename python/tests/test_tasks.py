"""What needs no process: the decorator, and names of exceptions."""

import subprocess
import sys

import pytest
from conftest import ENVIRONMENT

import crewjob
from crewjob import answers
from crewjob.tasks import registered, task_of


def test_a_decorated_function_stays_as_it_was():
    @crewjob.task(name="shop.price", retry_for=ConnectionError)
    def price(item: str) -> int:
        """What it costs."""
        crewjob.progress("outside a call, for nothing")
        return len(item)

    assert (price("tea"), price.__name__, price.__doc__) == (3, "price", "What it costs.")
    assert crewjob.current_call() is None
    about = registered["shop.price"]
    assert about is task_of(price) and about.retry_for == (ConnectionError,)


def test_a_task_is_called_after_its_module_as_with_celery():
    @crewjob.task
    def price():
        pass

    assert task_of(price).name == "test_tasks.price"


def test_a_function_without_the_decorator_is_no_task():
    with pytest.raises(TypeError, match="decorate it with crewjob.task"):
        crewjob.serve(len)


def test_the_type_of_an_exception_is_a_name_that_the_worker_takes():
    class Outer:
        class Ärger(Exception):
            pass

    odd = type("no name", (LookupError,), {})
    elsewhere = type("Busy", (Exception,), {"__module__": "shop-2.errors"})
    assert [answers.kind(cls) for cls in (Outer.Ärger, odd, elsewhere)] == ["Exception", "LookupError", "Busy"]


def test_the_core_needs_nothing_but_python():
    """Celery and billiard are not imported unless the program has them or asks for them."""
    block = "import sys; sys.modules['billiard'] = sys.modules['celery'] = None; "
    check = "import crewjob; assert issubclass(crewjob.SoftTimeLimitExceeded, Exception); crewjob.progress(1)"
    subprocess.run([sys.executable, "-c", block + check], env=ENVIRONMENT, check=True)
    lean = "import crewjob, sys; assert 'celery' not in sys.modules"
    subprocess.run([sys.executable, "-c", lean], env=ENVIRONMENT, check=True)
