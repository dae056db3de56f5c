"""Holds each example of an OpenAPI document to the schema that is beside it. Needs what schemathesis.txt names.

    examples.py URL
"""

import json
import sys
import urllib.request

import jsonschema_rs

with urllib.request.urlopen(sys.argv[1]) as answer:
    document = json.load(answer)


def resolve(value):
    if "$ref" not in value:
        return value
    place = document
    for key in value["$ref"].split("/")[1:]:
        place = place[key]
    return place


checked = 0
for path, operations in document["paths"].items():
    for method, operation in operations.items():
        bodies = {"body": operation["requestBody"]} if "requestBody" in operation else {}
        for where, body in (bodies | operation["responses"]).items():
            for media in body.get("content", {}).values():
                place = f"{method} {path} {where}"
                schema = media["schema"] | {"components": document["components"]}
                validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
                if validator.is_valid({"no": "such thing"}):
                    sys.exit(f"{place}: the schema takes anything")
                if not media["examples"]:
                    sys.exit(f"{place}: there is no example")
                for name, example in media["examples"].items():
                    for error in validator.iter_errors(resolve(example)["value"]):
                        sys.exit(f"{place}, {name}: {error}")
                    checked += 1
print(f"{checked} examples fit their schemas")
