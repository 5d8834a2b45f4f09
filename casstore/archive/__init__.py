"""Archives of snapshots: those of microsandbox 0.4, 0.6 and 0.7, and tars of OCI layouts, read and written as streams.

    form  members                                                                             head
    0.4   PREFIX/manifest.json, PREFIX/upper.ext4                                             what is nobody's parent
    0.6   snapshots/<hex>/snapshot.json, files/<hex>/<disk>, images/..., archive.json last    archive.json
    0.7   snapshots/snap_<hex>/..., layers/layer_<hex>.raw, images/..., archive.json last     archive.json
    oci   oci-layout, index.json, blobs/sha256/<hex>                                          index.json

Nothing is unpacked and no disk is copied: a disk's bytes go from the archive into chunks, and back, as they come.
"""
