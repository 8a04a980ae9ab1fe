"""docs/workflows.schema.json, which editors read, says of every example what dstack says."""
import json
import pathlib
import re

import jsonschema
import pytest
import yaml

TOP = pathlib.Path(__file__).parents[2]
SCHEMA = json.loads((TOP / "docs/workflows.schema.json").read_text())
EXAMPLES = sorted((TOP / "tests/workflows").glob("*/*.yaml"))


def test_the_schema_is_one():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert len(EXAMPLES) > 30


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_schema_agrees(path):
    text = path.read_text()
    errors = list(jsonschema.Draft7Validator(SCHEMA).iter_errors(yaml.safe_load(text)))
    if path.parent.name == "good":
        assert errors == []
    else:
        assert bool(errors) != ("# schema: cannot tell" in text), errors


def test_the_schema_has_the_keys_of_every_provider():
    source = (TOP / "config/workflow_keys.c").read_text()
    bits = {name: {name.lower()} for name in re.findall(r"([A-Z]+) = \d+", source)}
    for name, names in re.findall(r"([A-Z]+) = ([A-Z]+(?: \| [A-Z]+)+)", source):
        bits[name] = set().union(*(bits[part] for part in names.split(" | ")))
    keys = {}
    for key, mask in re.findall(r'\{"(\w+)", ([A-Z |]+)\}', source):
        for provider in set().union(*(bits[part] for part in mask.split(" | "))):
            keys.setdefault(provider, set()).add(key)
    workflow = SCHEMA["definitions"]["workflow"]
    branches = {b["if"]["properties"]["provider"]["const"]: set(b["then"]["propertyNames"]["enum"])
                for b in workflow["allOf"]}
    assert branches == keys and set(keys) == {"bash", "docker", "code", "lab", "notebook"}
    assert set(workflow["properties"]) == set().union(*keys.values())
