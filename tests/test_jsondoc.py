"""The strict JSON loader (faults 51 to 54, 57, 62)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.errors import DocumentError
from casstore.jsondoc import MAX_DEPTH, dump, load, load_object
from tests.support.effort import at_most

MIB = 1 << 20


def loaded(data: bytes | str, limit: int = 8 * MIB) -> Any:
    return load(data if isinstance(data, bytes) else data.encode(), subject="doc", limit=limit)


def refused(data: bytes | str, problem: str) -> DocumentError:
    with pytest.raises(DocumentError, match=problem) as caught:
        loaded(data)
    assert caught.value.subject == "doc"
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    return caught.value


@pytest.mark.parametrize("text", ["{}", "[]", '""', "0", "-1", "true", "null", ' {"a": [1, "é", {"b": null}]}\r\n'])
def test_plain_documents(text: str) -> None:
    assert loaded(text) == json.loads(text)


# --- 51: duplicate keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"digest":1,"digest":1}',
        '{"a":{"digest":1,"b":2,"digest":3}}',
        '[[[{"digest":1,"digest":2}]]]',
        '{"digest":1,"\\u0064igest":2}',
        '{"digest":{"digest":1},"digest":2}',
    ],
)
def test_duplicate_keys(text: str) -> None:
    refused(text, "duplicate key 'digest'")


def test_keys_that_only_look_equal_are_two() -> None:
    assert len(loaded('{"a":1,"A":2,"\\u00e9":3,"e\\u0301":4,"a ":5}')) == 5


def test_duplicate_keys_are_named_safely() -> None:
    refused('{"\\u001b[2J":1,"\\u001b[2J":2}', r"duplicate key '\\x1b\[2J'")
    refused(json.dumps({"k" * 1000: 1})[:-1] + "," + json.dumps({"k" * 1000: 1})[1:], "duplicate key 'kkk")


# --- 52: depth and length --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth(opening: str, closing: str) -> None:
    assert loaded(opening * (MAX_DEPTH - 1) + "[]" + closing * (MAX_DEPTH - 1)) is not None
    for depth in (MAX_DEPTH, 500, 100_000, 1_000_000):
        refused(opening * depth + "[]" + closing * depth, "at most 64 levels of nesting")


def test_depth_without_end() -> None:
    refused("[" * 1_000_000, "nesting|expected JSON")


def test_length_in_bytes() -> None:
    assert loaded('"é"', limit=4) == "é"
    with pytest.raises(DocumentError, match="at most 3 bytes of JSON, got 4"):
        loaded('"é"', limit=3)


def test_length_is_asked_first() -> None:
    data = b"[" * (64 * MIB)
    with at_most(10), pytest.raises(DocumentError, match="at most 4 bytes"):
        loaded(data, limit=4)


@pytest.mark.parametrize("shape", ["keys", "items", "objects"])
def test_big_documents_take_seconds_at_most(shape: str) -> None:
    document: Any = {
        "keys": {f"k{number:08}": number for number in range(200_000)},
        "items": list(range(500_000)),
        "objects": [{"a": 1} for _ in range(400_000)],
    }[shape]
    data = dump(document)
    assert 3 * MIB < len(data) < 5 * MIB
    with at_most(200):
        assert loaded(data) == document


def test_many_duplicate_keys_take_seconds_at_most() -> None:
    pairs = ",".join(f'"{number}":0' for number in range(300_000))
    with at_most(200):
        refused(f'{{{pairs},"299999":1}}', "duplicate key '299999'")


# --- 53: numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_no_number(text: str) -> None:
    refused(f'{{"size":{text}}}', f"expected a JSON number, got {text}")


@pytest.mark.parametrize("text", ["1.0", "1e999", "-1e999", "1E3", "0.5", "-0.0", "1e-400", "1." + "0" * 5000])
def test_no_float(text: str) -> None:
    refused(f'{{"size":{text}}}', "expected an integer, got ")


@pytest.mark.parametrize("number", [0, 1, -1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
def test_integers(number: int) -> None:
    value = loaded(str(number))
    assert value == number
    assert type(value) is int


@pytest.mark.parametrize("number", [2**64, 10**20 - 1, -(2**63) - 1, 10**4000])
def test_integers_of_64_bits(number: int) -> None:
    refused(f"[{number}]", "expected a 64-bit integer, got ")


def test_5000_digits() -> None:
    refused("[" + "9" * 5000 + "]", "expected a 64-bit integer, got 5000 digits")
    refused("[" + "9" * 4_000_000 + "]", "expected a 64-bit integer, got 4000000 digits")


@pytest.mark.parametrize("text", ["01", "+1", "-", "0x10", "1_000", ".5", "1.", "1e", "٣", "-01", "--1"])
def test_no_number_at_all(text: str) -> None:
    refused(f"[{text}]", "expected JSON|expected an integer|expected a 64-bit")


def test_negative_zero() -> None:
    refused("[-0]", "expected a 64-bit integer, got -0")


# --- 62: encodings, surrogates, and what stands around ----------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"])
def test_other_encodings(encoding: str) -> None:
    refused('{"a":1}'.encode(encoding), "expected UTF-8|byte order mark|expected JSON")


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b'"\xff"', "byte 1"),
        (b'"ab\xc3"', "byte 3"),
        (b'"\xc0\x80"', "byte 1"),
        (b'"\xed\xa0\x80"', "byte 1"),
        (b'"\xf4\x90\x80\x80"', "byte 1"),
    ],
)
def test_invalid_utf8(data: bytes, at: str) -> None:
    assert refused(data, "expected UTF-8, got byte 0x").at == at


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff":1}', '[["\\udc00\\ud800"]]', '{"a":{"b":"x\\ud83dx"}}'])
def test_lone_surrogates(text: str) -> None:
    refused(text, "lone surrogate")


def test_pairs_of_surrogates_are_one_character() -> None:
    assert loaded('"\\ud83d\\ude00"') == "😀"


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{}{}", "{} {}", "{}x", "{},", "{}\0", "[1,]", '{"a":1,}', "{'a':1}", "{a:1}", "// x\n{}", "[1 2]"),
        *(
            '"\n"',
            '"\x00"',
            '"\\x41"',
            '"\\u12"',
            '"abc',
            "tru",
            "True",
            "None",
            "undefined",
            "[",
            "{",
            '{"a"}',
            "\u00a01",
        ),
    ],
    ids=ascii,
)
def test_no_json(text: str) -> None:
    assert refused(text, "expected JSON").at.startswith("line ")


@pytest.mark.parametrize("text", ["[]", '"a"', "1", "true", "null"])
def test_load_object(text: str) -> None:
    with pytest.raises(DocumentError, match="expected a JSON object, got "):
        load_object(text.encode(), subject="doc", limit=100)
    assert load_object(f'{{"a":{text}}}'.encode(), subject="doc", limit=100) == {"a": json.loads(text)}


# --- and back --------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_load_undoes_dump(document: Any) -> None:
    data = dump(document)
    assert loaded(data) == document
    assert dump(loaded(data)) == data


@given(st.dictionaries(TEXTS, TEXTS), st.randoms(use_true_random=False))
def test_dump_does_not_depend_on_order(document: dict[str, Any], rng: Any) -> None:
    items = list(document.items())
    rng.shuffle(items)
    assert dump(dict(items)) == dump(document)


def test_dump_is_compact_sorted_utf8() -> None:
    assert dump({"b": [1, None, True], "a": "é\n"}) == '{"a":"é\\n","b":[1,null,true]}'.encode()


@given(st.binary(max_size=40) | st.text('{}[]",:0-1e.\\u d8tfn').map(str.encode))
def test_any_bytes_are_loaded_or_refused(data: bytes) -> None:
    try:
        document = loaded(data)
    except DocumentError:
        return
    assert loaded(dump(document)) == document == json.loads(data)
