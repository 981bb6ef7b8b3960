"""Says whether a copy holds all changes up to one and none after it; argv: the log, the copy.

A change that makes or replaces a file in several steps may be caught between them: an empty file, or a draft.
"""
import json, os, struct, sys

PAGE, MAPPED, LARGE, SPARSE = 4096, 200, 4, 4
log, copy = sys.argv[1:3]
ops = json.load(open(log))
sizes = {f"mapped{n}": 16 * PAGE for n in range(MAPPED)}
sizes |= {f"sparse{n}": 4 << 20 for n in range(SPARSE)} | {f"large{n}": 4 << 20 for n in range(LARGE)}
copied = {name: open(os.path.join(copy, name), "rb").read() for name in os.listdir(copy)}
state = {name: bytearray(size) for name, size in sizes.items()}


def newest(name, content):
    step = PAGE if name in sizes and not name.startswith("large") else 1 << 20
    return max((struct.unpack_from("<Q", content, at)[0] for at in range(0, len(content), step)), default=0) if len(content) >= 8 else 0


def apply(op):
    n, kind, name, where, times = op
    if kind == "at":
        state[name][where : where + 8 * times] = struct.pack("<Q", n) * times
    elif kind == "new":
        state[name] = struct.pack("<Q", n)
    elif kind == "move":
        state[name] = state.pop(where)
    else:
        state.pop(name)


def differs(until):
    """The names that are not as after the change `until`, but for what the next one has begun."""
    begun = {f"draft{until + 1}", f"made{until + 1}"}
    wrong = [name for name in state if name not in copied or bytes(state[name]) != copied[name]]
    return wrong + [name for name in copied if name not in state and name not in begun]


last = max(newest(name, content) for name, content in copied.items())
done = 0
for op in ops[:last]:
    apply(op)
best = differs(last)
# what comes next may leave no number behind: a file that is gone or moved
for op in ops[last : last + 20]:
    if not best:
        break
    apply(op)
    best = min(best, differs(op[0]), key=len)
print(json.dumps({"last": last, "wrong": sorted(best)[:20], "misses": len(best)}))
