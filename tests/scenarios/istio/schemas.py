"""Reads manifests (a YAML stream) from standard input, and prints one line for each mistake that an API server would refuse.

Kubernetes' own kinds are checked strictly. Istio's and the Prometheus operator's are checked by models made from their CRDs; those
ignore unknown keys, so what a model didn't take over is a mistake, too.
"""

import importlib
import sys

import kubernetes_validate
import yaml

MODELS = {
    "extensions.istio.io/v1alpha1": "cloudcoil.models.istio.extensions.v1alpha1",
    "networking.istio.io/v1": "cloudcoil.models.istio.networking.v1",
    "networking.istio.io/v1alpha3": "cloudcoil.models.istio.networking.v1alpha3",
    "security.istio.io/v1": "cloudcoil.models.istio.security.v1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}


def lost(given, taken, path):
    """The keys of `given` that `taken` lacks."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key, value in given.items():
            if key in taken:
                yield from lost(value, taken[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is unknown"
    elif isinstance(given, list) and isinstance(taken, list):
        for place, (value, other) in enumerate(zip(given, taken, strict=True)):
            yield from lost(value, other, f"{path}[{place}]")
    elif type(given) is not type(taken):
        yield f"{path} is no {type(taken).__name__}"


def as_wasm_plugin(extension):
    """A TrafficExtension as the WasmPlugin that says the same: there are no models of this kind yet, and its parts are the same."""
    spec = dict(extension["spec"])
    wasm = spec.pop("wasm")
    return {**extension, "kind": "WasmPlugin", "spec": {**spec, **wasm}}


def mistakes(manifest):
    if manifest["kind"] == "TrafficExtension":
        known = {"selector", "targetRefs", "phase", "priority", "match", "wasm"}
        yield from (f".spec.{key} is unknown" for key in manifest["spec"].keys() - known)
        yield from mistakes(as_wasm_plugin(manifest))
        return
    module = MODELS.get(manifest["apiVersion"])
    if module is None:
        try:
            kubernetes_validate.validate(manifest, "1.37", strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield getattr(error, "message", str(error))
        return
    model = getattr(importlib.import_module(module), manifest["kind"], None)
    if model is None:
        yield "there is no such kind"
        return
    try:
        taken = model.model_validate(manifest)
    except ValueError as error:
        yield " ".join(str(error).split())
        return
    yield from lost(manifest, taken.model_dump(mode="json", by_alias=True, exclude_unset=True), "")


count = 0
for manifest in yaml.safe_load_all(sys.stdin):
    if manifest is None:
        continue
    count += 1
    for mistake in mistakes(manifest):
        print(f"{manifest['kind']} {manifest['metadata']['name']}: {mistake}")
print(f"{count} manifests", file=sys.stderr)
