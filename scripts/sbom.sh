#!/usr/bin/env bash
# Writes an SBOM (CycloneDX 1.6, JSON) of the program: every crate that is compiled for it, with version, license, checksum and
# dependencies, as Cargo.lock, `cargo tree` and `cargo metadata` have them.
set -eu

usage() {
  cat <<'TXT'
Usage: scripts/sbom.sh [--validate] [TARGET]

Prints the SBOM for TARGET (default: this machine's, such as x86_64-unknown-linux-gnu). Crates that only run while the program is
built have the scope `excluded`; crates of tests and benchmarks are left out. C libraries are part of the crates ending in `-sys`.
With the same Cargo.lock, target and SOURCE_DATE_EPOCH (default: the time of the last commit) the result is the same.

  --validate   also check it against the published schema (installs cyclonedx-python-lib from PyPI into target/sbom first)

Needs cargo and Python 3.11. Exit codes: 0 done, 1 failed or invalid, 2 usage, or a tool is missing.
TXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
validate=false target=
for word in "$@"; do
  case $word in
    -h | --help) usage && exit 0 ;;
    --validate) validate=true ;;
    -*) usage >&2 && exit 2 ;;
    *) target=$word ;;
  esac
done
python3 -c 'import tomllib' 2>/dev/null || {
  echo "sbom: needs Python 3.11 or newer (apt install python3)" >&2
  exit 2
}
[ -n "$target" ] || target=$(rustc -vV | sed -n 's/^host: //p')
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo metadata --format-version 1 --locked --filter-platform "$target" >"$work/metadata.json" || exit 1
# `cargo metadata` also has crates of features that are off; `cargo tree` has what is compiled, and what of it becomes a part of the
# program.
tree() { cargo tree --locked --target "$target" --prefix none "$@" || exit 1; }
tree --edges normal,build >"$work/compiled"
tree --edges normal,no-proc-macro >"$work/linked"
python3 - "$work/metadata.json" "$target" "$work/compiled" "$work/linked" >"$work/sbom.json" <<'PY'
import datetime, json, os, sys, tomllib

metadata = json.load(open(sys.argv[1]))
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
with open("Cargo.lock", "rb") as lock:
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in tomllib.load(lock)["package"]}


def listed(path):
    """The name and version of each crate in the output of `cargo tree`."""
    with open(path) as tree:
        return {(words[0], words[1].removeprefix("v")) for words in map(str.split, tree) if words}


def key(node):
    return packages[node]["name"], packages[node]["version"]


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, linked):
    result = {"type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"]}
    result["scope"] = "required" if linked else "excluded"
    if checksum := checksums.get((package["name"], package["version"])):
        result["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if expression := package["license"]:
        # Older manifests separate alternatives by a slash.
        result["licenses"] = [{"expression": " OR ".join(part.strip() for part in expression.split("/"))}]
    result["purl"] = purl(package)
    if package["repository"]:
        result["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return result


root = metadata["resolve"]["root"]
compiled, linked = listed(sys.argv[3]), listed(sys.argv[4])
ordered = sorted((node for node in nodes if key(node) in compiled), key=lambda node: purl(packages[node]))
program = component(packages[root], True) | {"type": "application"}
moment = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
dependencies = [
    {
        "ref": purl(packages[node]),
        "dependsOn": sorted({purl(packages[d["pkg"]]) for d in nodes[node]["deps"]
                             if key(d["pkg"]) in compiled and any(k["kind"] in (None, "build") for k in d["dep_kinds"])}),
    }
    for node in ordered
]
json.dump(
    {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": program,
            "properties": [{"name": "cdx:rustc:sbom:target:triple", "value": sys.argv[2]}],
        },
        "components": [component(packages[node], key(node) in linked) for node in ordered if node != root],
        "dependencies": dependencies,
    },
    sys.stdout, indent=1, ensure_ascii=False)
print()
PY

if $validate; then
  [ -x target/sbom/bin/python ] || python3 -m venv target/sbom
  target/sbom/bin/pip install --quiet 'cyclonedx-python-lib[json-validation]==11.12.0' >&2
  target/sbom/bin/python - "$work/sbom.json" <<'PY'
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(f"sbom: does not match the schema: {error}" if error else 0)
PY
fi
cat "$work/sbom.json"
