"""Latency profiles: values, text form and stored form."""

from __future__ import annotations

import json

import pytest

from autoprune.codec import from_plain, to_plain_object
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.records.profile import LatencyProfile, parse_profile

FULL = LatencyProfile(
    name="long-b8",
    backend="onnxruntime",
    threads=2,
    batch_size=8,
    dtype="bfloat16",
    sizes=((64, 0.9), (512, 0.1)),
    axes=(1, 2),
)

TEXTS = {
    "any=": LatencyProfile(name="any"),
    "any": LatencyProfile(name="any"),
    "one=eager": LatencyProfile(name="one", backend="eager"),
    "one=batch=3": LatencyProfile(name="one", batch_size=3),
    "ort-b32=onnxruntime,batch=32,threads=2": LatencyProfile(
        name="ort-b32", backend="onnxruntime", batch_size=32, threads=2
    ),
    "long-b8=onnxruntime,threads=2,batch=8,dtype=bfloat16,sizes=64:0.9/512:0.1,axes=1/2": FULL,
    "equal=eager,sizes=16/32": LatencyProfile(name="equal", backend="eager", sizes=((16, 1.0), (32, 1.0))),
    "phone=remote,batch=1,command=adb shell bench --a=1,2 {model}": LatencyProfile(
        name="phone", backend="remote", batch_size=1, command="adb shell bench --a=1,2 {model}"
    ),
}


@pytest.mark.parametrize(("text", "profile"), TEXTS.items())
def test_the_text_form(text: str, profile: LatencyProfile) -> None:
    assert parse_profile(text) == profile


@pytest.mark.parametrize("profile", TEXTS.values(), ids=TEXTS)
def test_a_profile_is_stored_and_read(profile: LatencyProfile) -> None:
    data = json.loads(json.dumps(to_plain_object(profile)))
    assert from_plain(LatencyProfile, data, "here") == profile


def test_the_former_name_of_eager_is_read() -> None:
    assert LatencyProfile(name="old", backend="torch") == LatencyProfile(name="old", backend="eager")
    assert from_plain(LatencyProfile, {"name": "old", "backend": "torch"}, "here").backend == "eager"


WRONG = {
    "a b=eager": "name must be made of letters, digits",
    "=eager": "name must be made of letters, digits",
    "a=eager,threads=0": "threads must be an integer >= 1",
    "a=eager,threads=two": "threads of a latency profile must be an integer of at most 18 digits, but got 'two'",
    f"a=eager,batch={'9' * 5000}": r"batch of a latency profile must be .* 18 digits, but got '9{60}\.\.\.'",
    f"a=eager,sizes={10**400}:1": r"sizes of a latency profile must be .* but got '10{59}\.\.\.'",
    "a=eager,axes=99999999999999999999": "axes of a latency profile must be axes, such as 1 or 2/3",
    "a=eager,threads=2147483648": "threads must be an integer >= 1 and <= 1024",
    'a=remote,command=""': "command must begin with the name of a program",
    "a=eager,batch=0": "batch_size must be an integer >= 1, or None",
    "a=eager,sizes=4:0/5:1": r"sizes must be a tuple.*in which each must be a pair \(size >= 1, weight > 0\)",
    "a=eager,sizes=4:nan": r"sizes must be a tuple",
    "a=eager,sizes=x": "sizes of a latency profile must be sizes and their weights, such as 64:0.9/512:0.1",
    "a=eager,sizes=4/4": "sizes must name each size once",
    "a=eager,axes=0": "axes must be a tuple.*integer >= 1",
    "a=eager,axes=1/1": "axes must name each axis once",
    "a=eager,axes=": "axes of a latency profile must be axes, such as 1 or 2/3",
    "a=eager,dtype=float31": "dtype must be one of .*, but got 'float31'. Did you mean 'float32'",
    "a=eager,fast": "must be NAME=BACKEND,key=value,...",
    "a=eager,batch=1,batch=2": "must name batch once",
    "a=remote": "command must be a command line or module:function for the backend remote",
    "a=remote,command=sh -c 'exit 1": "command must close each of its quotes",
    "a=eager,command=ls": "command must be .* empty for any other",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_profile(text)


def test_an_unknown_key_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'threads'"):
        parse_profile("a=eager,treads=2")
