#!/usr/bin/env python3
"""Writes the bill of materials of the binary `baler` as CycloneDX 1.5: what `cargo metadata` says of everything that is compiled into it or runs
while it is compiled, with the checksums of Cargo.lock. The same lock file gives the same bytes.

Usage: bill.py FILE
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"


def url(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    entry = {"type": "library", "bom-ref": url(package), "name": package["name"], "version": package["version"], "purl": url(package)}
    if package["description"]:
        entry["description"] = " ".join(package["description"].split())
    if package["license"]:
        # Old manifests write a slash for OR.
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ").replace("  ", " ")}]
    if checksum := checksums.get((package["name"], package["version"])):
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def main():
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    main_id = next(id for id, package in packages.items() if package["name"] == "baler" and id in metadata["workspace_members"])

    needed, waiting = {}, [main_id]
    while waiting:
        id = waiting.pop()
        if id in needed:
            continue
        # What only tests need has the kind `dev`.
        needed[id] = sorted({dep["pkg"] for dep in nodes[id]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])})
        waiting.extend(needed[id])

    main = component(packages[main_id], checksums) | {"type": "application"}
    libraries = sorted((component(packages[id], checksums) for id in needed if id != main_id), key=lambda entry: entry["bom-ref"])
    graph = [{"ref": url(packages[id]), "dependsOn": sorted(url(packages[dep]) for dep in deps)} for id, deps in needed.items()]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": main, "properties": [{"name": "cargo:target", "value": TARGET}]},
        "components": libraries,
        "dependencies": sorted(graph, key=lambda entry: entry["ref"]),
    }
    Path(sys.argv[1]).write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(libraries)} components in {sys.argv[1]}")


main()
