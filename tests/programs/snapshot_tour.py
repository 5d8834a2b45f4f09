"""A program for microsandbox 0.4.4: makes every call that its snapshots have, and prints what comes back.

    python snapshot_tour.py WORK FIXTURES

WORK is an empty directory. FIXTURES has the artifact directories root, mid, head (each the parent of the next) and
sealed, and the archive plain.tar.zst. The sandboxes are those that tests/test_aio_tour.py makes.
"""

import asyncio
import json
import os
import shutil
import sys
from datetime import datetime

from microsandbox import (
    InvalidConfigError,
    IoError,
    MicrosandboxError,
    SandboxNotFoundError,
    Snapshot,
    SnapshotHandle,
)

KINDS = (InvalidConfigError, IoError, SandboxNotFoundError)
WORK, FIXTURES = sys.argv[1:]
IN_MANIFEST = ("digest", "size_bytes", "image_ref", "image_manifest_digest", "format", "fstype", "parent")


def work(*parts):
    return os.path.join(WORK, *parts)


def fixture(name):
    return os.path.join(FIXTURES, name)


def show(label, value):
    if isinstance(value, Snapshot):
        print(f"{label}: a snapshot at {value.path}")
        for name in (*IN_MANIFEST, "created_at", "source_sandbox"):
            print(f"    {name} = {getattr(value, name)!r}")
        print(f"    labels = {sorted(value.labels.items())}")
    elif isinstance(value, SnapshotHandle):
        print(f"{label}: a handle of {value.path}")
        for name in ("digest", "name", "parent_digest", "image_ref", "format", "size_bytes"):
            print(f"    {name} = {getattr(value, name)!r}")
        print(f"    created_at is a {type(value.created_at).__name__}")
    elif isinstance(value, list):
        print(f"{label}: {len(value)} of them")
        for each in sorted(value, key=lambda each: os.path.basename(each.path)):
            show(f"  {label}", each)
    elif isinstance(value, dict):
        print(f"{label}: {json.dumps(value, sort_keys=True)}")
    else:
        print(f"{label}: {value!r}")


async def tell(label, call):
    """Print the result of a call, or its error; returns the result."""
    try:
        result = await call()
    except (MicrosandboxError, ValueError, TypeError) as error:
        code = getattr(error, "code", "no code")
        kinds = [kind.__name__ for kind in KINDS if isinstance(error, kind)]
        print(f"{label}: {type(error).__name__} ({code}, {kinds}): {error}")
        return None
    show(label, result)
    return result


async def names():
    """Those that were given, and how many there are."""
    found = [handle.name for handle in await Snapshot.list()]
    return sorted(name for name in found if not name.startswith("sha256-")), len(found)


async def creating():
    show("an empty list", await Snapshot.list())
    made = await tell("create", lambda: Snapshot.create("base", name="one", labels={"step": "pip", "by": "ann"}))
    sealed = await tell("sealed", lambda: Snapshot.create("dense", name="two", record_integrity=True, labels={}))
    await tell("verify", made.verify)
    await tell("verify what is recorded", sealed.verify)
    sparse = await tell("with holes", lambda: Snapshot.create("base", name="four", record_integrity=True))
    await tell("verify it", sparse.verify)
    await tell("remove it", lambda: Snapshot.remove("four"))
    await tell("taken", lambda: Snapshot.create("base", name="one"))
    await tell("forced", lambda: Snapshot.create("base", name="one", force=True))
    await tell("of a crashed one", lambda: Snapshot.create(source_sandbox="crashed", name="three"))
    print("a name moved:", (await Snapshot.open("one")).digest != made.digest)

    for sandbox in ("running", "draining", "paused", "nodisk", "unpinned", "bound", "nobody", ""):
        await tell(f"of {sandbox!r}", lambda sandbox=sandbox: Snapshot.create(sandbox, name="none"))
    for name in ("", "a/b", ".hidden", "/tmp/x"):
        await tell(f"as {name!r}", lambda name=name: Snapshot.create("base", name=name))
    await tell("a sandbox comes first", lambda: Snapshot.create("nobody", name=""))
    await tell("name and path", lambda: Snapshot.create("base", name="x", path=work("x")))
    await tell("neither", lambda: Snapshot.create("base"))
    await tell("no text", lambda: Snapshot.create(5, name="x"))
    await tell("no dict", lambda: Snapshot.create("base", name="x", labels=[("a", "b")]))
    await tell("no text in it", lambda: Snapshot.create("base", name="x", labels={"a": 1}))
    await tell("no flag", lambda: Snapshot.create("base", name="x", force=1))
    await tell("no path", lambda: Snapshot.create("base", path=5))
    await tell("a path of bytes", lambda: Snapshot.create("base", path=os.fsencode(work("x"))))
    await tell("no such argument", lambda: Snapshot.create("base", name="x", compress=True))
    await tell("no constructor", Snapshot)


async def looking():
    print("list:", *await names())
    newest = [handle.name for handle in await Snapshot.list()]
    print("newest first:", newest)
    opened = await tell("open", lambda: Snapshot.open("two"))
    handle = await tell("get", lambda: Snapshot.get("two"))
    await tell("get by digest", lambda: Snapshot.get(handle.digest))
    await tell("get by path", lambda: Snapshot.get(handle.path))
    await tell("open by path", lambda: Snapshot.open(handle.path))
    await tell("open the handle", handle.open)
    told = datetime.fromisoformat(opened.created_at)
    print("milliseconds:", handle.created_at == float(int(told.timestamp() * 1000)))
    for text in ("missing", "", work("missing"), "./missing", "~/missing"):
        await tell(f"open {text!r}", lambda text=text: Snapshot.open(text))
    for text in ("missing", "", work("missing"), "sha256:" + 64 * "0"):
        await tell(f"get {text!r}", lambda text=text: Snapshot.get(text))
    await tell("open a path object", lambda: Snapshot.open(type("P", (), {})()))
    results = await asyncio.gather(*(Snapshot.open(name) for name in ("one", "two")), Snapshot.get("three"))
    print("together:", [type(each).__name__ for each in results])
    print("in time:", (await asyncio.wait_for(Snapshot.get("one"), 60)).name)


async def elsewhere():
    made = await tell("at a path", lambda: Snapshot.create("base", path=work("shelf", "four"), labels={"a": "b"}))
    print("files:", sorted(os.listdir(made.path)), os.stat(work("shelf", "four", "upper.ext4")).st_size)
    await tell("taken", lambda: Snapshot.create("base", path=work("shelf", "four")))
    await tell("forced", lambda: Snapshot.create("base", path=work("shelf", "four"), force=True))
    await tell("open it", lambda: Snapshot.open(work("shelf", "four")))
    await tell("verify it", made.verify)
    os.mkdir(work("shelf", "nothing"))
    await tell("list_dir", lambda: Snapshot.list_dir(work("shelf")))
    await tell("list no directory", lambda: Snapshot.list_dir(work("missing")))
    with open(work("file"), "w"):
        pass
    await tell("list a file", lambda: Snapshot.list_dir(work("file")))
    await tell("export it", lambda: Snapshot.export(work("shelf", "four"), work("four.tar.zst")))
    await tell("import it there", lambda: Snapshot.import_(work("four.tar.zst"), dest=work("imported")))
    print("in there:", len(os.listdir(work("imported"))))
    await tell("remove it", lambda: Snapshot.remove(work("shelf", "four")))
    print("it is there:", os.path.exists(work("shelf", "four")))
    await tell("remove it again", lambda: Snapshot.remove(work("shelf", "four")))


async def damaged():
    for what in ("size", "missing", "link", "schema", "fstype", "nomanifest"):
        folder = work("damaged", what)
        shutil.copytree(fixture("root"), folder)
        upper, manifest = os.path.join(folder, "upper.ext4"), os.path.join(folder, "manifest.json")
        with open(manifest) as file:
            document = json.load(file)
        if what == "size":
            os.truncate(upper, document["upper"]["size_bytes"] + 1)
        elif what in {"missing", "link"}:
            os.remove(upper)
        elif what == "nomanifest":
            os.remove(manifest)
        if what == "link":
            os.symlink("/etc/hostname", upper)
        if what in {"schema", "fstype"}:
            document[what] = {"schema": 42, "fstype": ""}[what]
            with open(manifest, "w") as file:
                json.dump(document, file)
        await tell(f"open {what}", lambda folder=folder: Snapshot.open(folder))
        await tell(f"remove {what}", lambda folder=folder: Snapshot.remove(folder))
    await tell("list them", lambda: Snapshot.list_dir(work("damaged")))
    shutil.copytree(fixture("sealed"), work("broken"))
    with open(work("broken", "upper.ext4"), "r+b") as file:
        file.write(b"X")
    broken = await Snapshot.open(work("broken"))
    await tell("verify", broken.verify)
    await tell("export", lambda: Snapshot.export(work("broken"), work("broken.tar")))
    print("an archive of it:", os.path.exists(work("broken.tar")) and os.path.getsize(work("broken.tar")) > 0)


async def archives():
    await tell("export", lambda: Snapshot.export("one", work("out", "one.tar.zst")))
    await tell("export plain", lambda: Snapshot.export("two", work("out", "two.tar"), plain_tar=True))
    await tell("export with image", lambda: Snapshot.export("three", work("out", "three.tar.zst"), with_image=True))
    await tell("export nothing", lambda: Snapshot.export("missing", work("out", "none.tar")))
    await tell("export onto a directory", lambda: Snapshot.export("one", work("out")))
    digest = (await Snapshot.open("two")).digest
    await Snapshot.remove("two")
    back = await tell("import", lambda: Snapshot.import_(work("out", "two.tar")))
    print("the same digest:", back.digest == digest)
    await tell("verify it", (await back.open()).verify)
    await tell("import it again", lambda: Snapshot.import_(work("out", "two.tar")))
    await tell("import a fixture", lambda: Snapshot.import_(fixture("plain.tar.zst")))
    await tell("import nothing", lambda: Snapshot.import_(work("missing.tar")))
    print("list:", *await names())


async def parents():
    await tell("open a fixture", lambda: Snapshot.open(fixture("head")))
    print("reindex a directory:", await Snapshot.reindex(FIXTURES))
    print("reindex nothing:", await Snapshot.reindex(work("missing")))
    await tell("reindex a file", lambda: Snapshot.reindex(dir=work("file")))
    head, mid = await Snapshot.get("head"), await Snapshot.get("mid")
    show("head", head)
    print("its parent:", head.parent_digest == mid.digest)
    await tell("remove a parent", lambda: Snapshot.remove("root"))
    await tell("remove a parent by its digest", lambda: Snapshot.remove(mid.digest))
    await tell("export with parents", lambda: Snapshot.export(fixture("head"), work("chain.tar"), with_parents=True))
    await tell("force", lambda: Snapshot.remove("mid", force=True))
    await tell("an absent parent", lambda: Snapshot.export(fixture("head"), work("head.tar"), with_parents=True))


async def removing():
    await tell("remove", lambda: Snapshot.remove("one"))
    await tell("remove again", lambda: Snapshot.remove("one"))
    handle = await Snapshot.get("three")
    await tell("remove the handle", lambda: handle.remove(force=True))
    await tell("remove it again", handle.remove)
    await tell("open it", handle.open)
    await tell("remove a digest", lambda: Snapshot.remove("sha256:" + 64 * "0"))
    print("list:", *await names())
    print("reindex is a count:", isinstance(await Snapshot.reindex(), int))


async def main():
    for part in (creating, looking, elsewhere, damaged, archives, parents, removing):
        print(f"--- {part.__name__}")
        await part()
    print("end", flush=True)


asyncio.run(main())
