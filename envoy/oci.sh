#!/bin/sh
# Puts the filter into an OCI image layout that Istio and Envoy Gateway accept: one layer, with the module as plugin.wasm.
# The same module always gives the same digest, so a digest in values.yaml says which filter runs.
#   envoy/oci.sh target/wasm32-wasip1/release/weft_filter.wasm target/oci
set -eu

wasm=$1 layout=$2
version=$(sed -n 's/^version: //p' "$(dirname "$0")/istio/Chart.yaml")
rm -rf "$layout"
mkdir -p "$layout/blobs/sha256"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

digest() { sha256sum "$1" | cut -d' ' -f1; }
# Stores a file under its digest, and prints it as a descriptor of this type.
store() {
    hash=$(digest "$1")
    cp "$1" "$layout/blobs/sha256/$hash"
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%s%s}' "$2" "$hash" "$(wc -c <"$1" | tr -d ' ')" "${3-}"
}

install -m 644 "$wasm" "$work/plugin.wasm"
tar --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work" -cf "$work/layer.tar" plugin.wasm
gzip -n -9 <"$work/layer.tar" >"$work/layer.tar.gz"
printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(digest "$work/layer.tar")" >"$work/config"
config=$(store "$work/config" application/vnd.oci.image.config.v1+json)
layer=$(store "$work/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$config" "$layer" >"$work/manifest"
manifest=$(store "$work/manifest" application/vnd.oci.image.manifest.v1+json \
    ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"$version\"}")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' "$manifest" >"$layout/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"

cat <<END
$layout is an OCI image layout. Push it, for example:
  crane push $layout REGISTRY/weft/filter:$version
  oras cp --from-oci-layout $layout:$version REGISTRY/weft/filter:$version
  skopeo copy oci:$layout:$version docker://REGISTRY/weft/filter:$version
filter.sha256 with oci://…:              $(digest "$work/manifest")
filter.sha256 with https://… or file://: $(digest "$wasm")
END
