"""Checks events, one a line on stdin, against the schema of OCSF that ocsf-json-schema carries.

Beyond the JSON Schema: each caption must be the one that the schema has for its number, and
type_uid must be made of class and activity. Exit status 0: all are valid.
"""

import functools
import json
import sys

import jsonschema
import ocsf_json_schema as ocsf


@functools.cache
def schema(version):
    return ocsf.get_ocsf_schema(version=version)


@functools.cache
def validator(version, class_uid, profiles):
    embedded = ocsf.OcsfJsonSchemaEmbedded(schema(version))
    name = embedded.lookup_class_name_from_uid(class_uid)
    made = embedded.get_class_schema(name, list(profiles))
    cls = schema(version)["classes"][name]
    unknown = set(profiles) - set(cls["profiles"])
    if unknown:
        raise ValueError(f"{name} has no profiles {unknown}")
    return jsonschema.Draft202012Validator(made), cls


def captions(version, entity, value, path):
    """Problems with numbers and the captions beside them."""
    for name, inner in value.items():
        attribute = entity["attributes"].get(name)
        if attribute is None:
            continue
        captions_of = attribute.get("enum") or {}
        sibling = attribute.get("sibling") or name.removesuffix("_id").replace("_uid", "_name")
        known = captions_of.get(str(inner), {}).get("caption")
        said = value.get(sibling) if sibling != name else None
        if known and said is not None and inner != 99 and said != known:
            yield f"{path}.{sibling}: {said!r}, but {inner} is {known!r}"
        if known and said is None and sibling != name and sibling in entity["attributes"]:
            yield f"{path}.{sibling}: missing beside {name}"
        below = schema(version)["objects"].get(attribute.get("object_type"))
        if below and below.get("attributes"):
            for one in inner if isinstance(inner, list) else [inner]:
                yield from captions(version, below, one, f"{path}.{name}")


def problems(event):
    version = event["metadata"]["version"]
    uid = event["class_uid"]
    check, cls = validator(version, uid, tuple(event["metadata"]["profiles"]))
    for error in check.iter_errors(event):
        yield f"{error.json_path}: {error.message[:300]}"
    yield from captions(version, cls, event, "$")
    if event["type_uid"] != uid * 100 + event["activity_id"]:
        yield "$.type_uid: not made of class and activity"


count = failed = 0
for count, line in enumerate(sys.stdin, 1):
    event = json.loads(line)
    for problem in problems(event):
        failed += 1
        print(f"event {count}, class {event.get('class_name')}: {problem}")
print(f"{count} events checked, {failed} problems")
sys.exit(1 if failed or not count else 0)
