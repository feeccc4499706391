# SPDX-License-Identifier: Apache-2.0
"""Every malformed value of the contract's metadata is refused, none is repaired."""

from __future__ import annotations

import json

import pytest

from edge_imprint_runtime import BackboneInfo, Contract, GraphInfo, Preprocess, Rule
from edge_imprint_runtime.contract import MAX_LABEL_BYTES, Teachable, decode, encode
from edge_imprint_runtime.contract.codec import PREFIX
from edge_imprint_runtime.contract.spec import MAX_TEXT_BYTES
from edge_imprint_runtime.errors import ContractValueError

DIGEST = "0123456789abcdef" * 4
MODEL = encode(
    Contract(
        labels=("cat", "dog"),
        rule=Rule(),
        embedding_size=8,
        recipe="given",
        backbone=BackboneInfo("tiny", "packaged", DIGEST, Preprocess(16, 16)),
        graph=GraphInfo("uint8", 20, teachable=Teachable()),
        temperature=0.25,
    )
)
RULE = MODEL[PREFIX + "rule"]
STEPS = MODEL[PREFIX + "preprocess"]
# Digits to int() and str.isdigit(), not to us: Arabic-Indic, fullwidth, superscript.
OTHER_DIGITS = ("\u0661", "\uff11", "\u00b2")

NOT_COUNTS = ["", "0", "-8", "+8", " 8", "8 ", "8\n", "1_0", "8.0", "1e1", "0x8", "nan"]
NOT_COUNTS += [*OTHER_DIGITS, "9" * 9, "9" * 10, "9" * 5_000]

NOT_LABELS = [
    *("", "[", "{}", '"cat"', "null", "NaN", "['a']", '["a"]x', '["a",]', "\ufeff[]"),
    *("[]", "[1]", "[NaN]", "[null]", '["a",1]', '["a",["b"]]', '[{"a":"b"}]'),
    *('[""]', '["a","a"]', '["a","\\u0061"]', '["a\\u0000"]', '["\\ud800"]'),
    json.dumps(["é" * (MAX_LABEL_BYTES // 2 + 1)]),
    "[" * 100_000,  # deeper than the parser's stack
    "[" + "1" * 5_000 + "]",  # longer than int() takes
]

NOT_RULES = [
    *("", RULE + " ", " " + RULE, RULE.upper(), RULE.replace(" ", "  ", 1)),
    *(RULE.replace(" ", "\t"), RULE.replace(" ", ","), RULE.replace("=", ":")),
    " ".join(reversed(RULE.split(" "))),
    RULE + " extra=1",
    RULE + " weighting=uniform",
    RULE.rpartition(" ")[0],
    *(RULE.replace("=l2", value) for value in ("=L2", "=l2=l2", "=", "")),
    *(RULE.replace("=max", value) for value in ("=median", "='max'")),
    RULE.replace("neighbors=1", "neighbors=2"),
    RULE.replace("=uniform", "=distance"),
    RULE.replace("=max", "=mnn").replace("=uniform", "=distance"),
    *(RULE.replace("neighbors=1", f"neighbors={n}") for n in NOT_COUNTS[:4]),
    *(RULE.replace("neighbors=1", f"neighbors={n}") for n in ("1.0", *OTHER_DIGITS)),
]

NOT_SIDES = ["16", "0x16", "16x0", "x16", "16x", "16x16x16", "-1x16", "8193x16", "1_6x16"]
NOT_SIDES += ["16X16", "16 x16", f"{OTHER_DIGITS[0]}x16", f"16x{OTHER_DIGITS[1]}", ""]
NOT_NUMBERS = ["nan", "inf", "-inf", "1e999", "-1e999", "+1", "0_1", "0x1", ".5", "5.", "1e+"]
NOT_NUMBERS += ["", "-", "1,2", "0.0 ", "1" * 21, "0." + "1" * 21, "1e0001", *OTHER_DIGITS]

NOT_STEPS = [
    *("", "resize", STEPS + " ", STEPS.upper(), STEPS + " mean=0,0,0", STEPS + " extra=1"),
    " ".join(reversed(STEPS.split(" "))),
    STEPS.replace("stretch:16x16", "stretch"),
    *(STEPS.replace(":16x16", f":{side}") for side in NOT_SIDES),
    *(STEPS.replace(" size=16x16", f" size={side}") for side in NOT_SIDES),
    *(STEPS.replace("mean=0.0", f"mean={number}") for number in NOT_NUMBERS),
    *(STEPS.replace("std=1.0", f"std={number}") for number in NOT_NUMBERS),
    *(STEPS.replace("std=1.0", f"std={number}") for number in ("0", "-1", "0.0", "1e-999")),
    STEPS.replace("mean=0.0,0.0,0.0", "mean=0.0,0.0"),
    STEPS.replace("bilinear", "cubic"),
    STEPS.replace("stretch", "squash"),
]

NOT_TEXTS = ["", "a\0b", "\ud800", "x" * (MAX_TEXT_BYTES + 1), "é" * (MAX_TEXT_BYTES // 2 + 1)]

MALFORMED = {
    "labels": NOT_LABELS,
    "rule": NOT_RULES,
    "recipe": NOT_TEXTS,
    "embedding_size": [*NOT_COUNTS, "65537"],
    "backbone": NOT_TEXTS,
    "backbone_weights": NOT_TEXTS,
    "backbone_digest": ["", "0" * 63, "0" * 65, "g" * 64, DIGEST.upper(), DIGEST + "\n"],
    "preprocess": NOT_STEPS,
    "input": [
        *("", "uint8", "uint8 NCHW RGB", "uint8 NHWC BGR", "float32 NHWC RGB", "\ud800"),
        *("frame", "frame rgb", "frame rgb 0x0", "frame rgb 720", "frame nv12 any"),
        *("frame rgb any bt601 limited", "frame rgb 720x1280 bt601 limited"),
        *("frame nv12 720x1280", "frame nv12 720x1280 bt601", "frame yuyv 2x3 bt601 full"),
        "frame i420 2x2 bt601 limited",
    ],
    "slots": [*NOT_COUNTS, "1048577"],
    "temperature": ["", "0", "-1", "+1", "1e13", "nan", *NOT_NUMBERS[:5], *OTHER_DIGITS],
    "precision": ["", "fp64", "FP32", "exact", "x" * 5_000],
    "head_precision": ["", "fp8", "Exact", "fp16 "],
    "target": ["", "Jetpack", "-6", "jetpack 6", "x" * 65, "\ud800"],
    "teachable": [
        *("", "default", "default 256", "default 256 5 1", "none 256 5", "default 0 5"),
        *("default 65537 5", "default 256 0", "default 256  5", "Input 1 1"),
    ],
}
CASES = [
    pytest.param(key, value, id=f"{key}-{number}")
    for key, values in MALFORMED.items()
    for number, value in enumerate(values)
]


@pytest.mark.parametrize(("key", "value"), CASES)
def test_malformed_value(key: str, value: str) -> None:
    assert MODEL[PREFIX + key] != value
    with pytest.raises(ContractValueError, match=r"^m\.onnx: ") as caught:
        decode(MODEL | {PREFIX + key: value}, model=True, where="m.onnx")
    assert len(str(caught.value)) < 1_000
    assert "\n" not in str(caught.value)


def test_the_value_that_is_not_malformed() -> None:
    """The cases above differ from this in one value each, so that is what they are about."""
    assert decode(MODEL, model=True).labels == ("cat", "dog")
