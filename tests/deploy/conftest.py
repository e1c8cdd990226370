"""Rendering the manifests, and judging them as an API server would that knows KubeRay's definitions."""

import functools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celpy
import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
KUBERNETES = "1.36"
Manifest = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: dates are text, and a key given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, f"a key is given twice in {keys}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node))


def documents(text: str) -> list[Manifest]:
    return [document for document in yaml.load_all(text, _Loader) if document]


@functools.cache
def _rendered(overlay: str) -> str:
    command = ["kubectl", "kustomize", str(K8S / "overlays" / overlay)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def rendered() -> Callable[[str], list[Manifest]]:
    """The manifests of an overlay, as `kubectl apply -k` would send them."""
    if not shutil.which("kubectl"):
        pytest.skip("there is no kubectl, which renders the manifests")
    return lambda overlay: documents(_rendered(overlay))


@pytest.fixture(scope="session")
def complaints(request: pytest.FixtureRequest) -> Callable[[Manifest], list[str]]:
    """What a strict API server with KubeRay's definitions says against a manifest; [] when it takes it.

    Skips the test at the first manifest of KubeRay's where the definitions are not at hand.
    """

    @functools.cache
    def custom() -> dict[tuple[str, str], Manifest]:
        files = sorted((request.getfixturevalue("reference") / "crds").glob("*.yaml"))
        return {key: schema for file in files for key, schema in _schemas(file)}

    def judged(manifest: Manifest) -> list[str]:
        key = manifest["apiVersion"], manifest["kind"]
        if manifest["apiVersion"].startswith("ray.io/") and key in custom():
            return list(_against(custom()[key], manifest))
        return _against_kubernetes(manifest)

    return judged


def _schemas(file: Path) -> Iterator[tuple[tuple[str, str], Manifest]]:
    spec = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]
    for version in spec["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema


def _against_kubernetes(manifest: Manifest) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [str(error)]
    return []


def _against(schema: Manifest, manifest: Manifest) -> Iterator[str]:
    validator = jsonschema.Draft7Validator(_strict(schema))
    yield from (f"{error.json_path}: {error.message}"[:300] for error in validator.iter_errors(manifest))
    yield from _rules_broken(schema, manifest, manifest["kind"])


_KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")


def _strict(schema: Manifest) -> Manifest:
    """A structural schema as JSON Schema that knows no other fields than those it lists."""
    result: Manifest = {name: schema[name] for name in _KEPT if name in schema}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if schema.get("nullable") and "type" in result:
        result["type"] = [result["type"], "null"]
    properties = schema.get("properties", {})
    if properties:
        result["properties"] = {name: _strict(part) for name, part in properties.items()}
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _strict(schema["additionalProperties"])
    elif properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    if "items" in schema:
        result["items"] = _strict(schema["items"])
    defaulted = {name for name, part in properties.items() if "default" in part}
    if required := sorted(set(schema.get("required", ())) - defaulted):
        result["required"] = required
    return result


def _rules_broken(schema: Manifest, value: Any, path: str) -> Iterator[str]:
    """Rules in CEL that stand beside the schema; those on how a value changes do not hold for a new one."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"]:
            environment = celpy.Environment()
            program = environment.program(environment.compile(rule["rule"]))
            if not program.evaluate({"self": celpy.json_to_cel(value)}):
                yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        others = schema.get("additionalProperties")
        for name, part in value.items():
            below = schema.get("properties", {}).get(name) or others
            if isinstance(below, dict):
                yield from _rules_broken(below, part, f"{path}.{name}")
    elif isinstance(value, list) and "items" in schema:
        for number, part in enumerate(value):
            yield from _rules_broken(schema["items"], part, f"{path}[{number}]")
