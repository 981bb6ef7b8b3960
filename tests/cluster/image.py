#!/usr/bin/env python3
"""image.py FOLDER NAME OUT.tar PROGRAM: an OCI image of one layer, for `ctr images import`."""

import hashlib
import io
import json
import os
import sys
import tarfile

folder, name, out, program = sys.argv[1:]
blobs = {}


def blob(data):
    digest = hashlib.sha256(data).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = data
    return {"digest": f"sha256:{digest}", "size": len(data)}


def document(value):
    return blob(json.dumps(value).encode())


def layer():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in sorted(os.listdir(folder)):
            tar.add(os.path.join(folder, entry), arcname=entry)
    return buffer.getvalue()


content = blob(layer())
config = document({
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/sbin"], "Cmd": [program], "WorkingDir": "/"},
    "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
})
image = "application/vnd.oci.image"
manifest = document({
    "schemaVersion": 2,
    "mediaType": f"{image}.manifest.v1+json",
    "config": {"mediaType": f"{image}.config.v1+json", **config},
    "layers": [{"mediaType": f"{image}.layer.v1.tar", **content}],
})
index = {
    "schemaVersion": 2,
    "manifests": [{
        "mediaType": f"{image}.manifest.v1+json",
        **manifest,
        "annotations": {"io.containerd.image.name": name},
    }],
}
files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode(), **blobs}
with tarfile.open(out + ".new", "w") as tar:
    for path, data in files.items():
        entry = tarfile.TarInfo(path)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
os.rename(out + ".new", out)
