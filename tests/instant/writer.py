"""Changes files in every way, one change after the other, and writes down which came when; asked line by line.

argv: the folder, the file for the log. Each change has a number, which is what it writes; so a copy is right if there is
a number up to which it holds all changes, and none after it.
"""
import json, mmap, os, random, struct, sys, threading, time

root, log = sys.argv[1:3]
PAGE, MAPPED, LARGE, SPARSE = 4096, 200, 4, 4
path = lambda name: os.path.join(root, name)
ops, ended = [], threading.Event()


def mapped(name, size, filled):
    with open(path(name), "wb") as file:
        file.truncate(size)
        if filled:
            file.write(bytes(size))
    with open(path(name), "r+b") as file:
        return mmap.mmap(file.fileno(), size)


maps = {f"mapped{n}": mapped(f"mapped{n}", 16 * PAGE, True) for n in range(MAPPED)}
holes = {f"sparse{n}": mapped(f"sparse{n}", 4 << 20, False) for n in range(SPARSE)}
for n in range(LARGE):
    with open(path(f"large{n}"), "wb") as file:
        file.write(bytes(4 << 20))
large = {f"large{n}": os.open(path(f"large{n}"), os.O_RDWR) for n in range(LARGE)}
made = []


def store(name, target, n):
    at = random.randrange(len(target) // PAGE) * PAGE
    struct.pack_into("<Q", target, at, n)
    ops.append((n, "at", name, at, 1))


def change(n):
    kind = random.random()
    if kind < 0.85:
        name = random.choice(list(maps))
        store(name, maps[name], n)
    elif kind < 0.89:
        name = random.choice(list(holes))
        store(name, holes[name], n)
    elif kind < 0.90:
        name = random.choice(list(large))
        at = random.randrange(4) << 20
        os.pwrite(large[name], struct.pack("<Q", n) * (1 << 17), at)
        ops.append((n, "at", name, at, 1 << 17))
    elif kind < 0.94 or len(made) < 8:
        name = f"made{n}"
        with open(path(name), "wb") as file:
            os.write(file.fileno(), struct.pack("<Q", n))
        made.append(name)
        ops.append((n, "new", name, None, None))
    elif kind < 0.96:
        old = made.pop(random.randrange(len(made)))
        new = f"moved{n}"
        os.rename(path(old), path(new))
        made.append(new)
        ops.append((n, "move", new, old, None))
    elif kind < 0.98:
        name = random.choice(made)
        with open(path(f"draft{n}"), "wb") as file:
            os.write(file.fileno(), struct.pack("<Q", n))
        os.rename(path(f"draft{n}"), path(name))
        ops.append((n, "new", name, None, None))
    else:
        name = made.pop(random.randrange(len(made)))
        os.unlink(path(name))
        ops.append((n, "gone", name, None, None))


def run():
    n = 0
    while not ended.is_set():
        n += 1
        change(n)
        time.sleep(0.0002)


thread = threading.Thread(target=run)
thread.start()
print("ready")
for line in sys.stdin:
    if line.strip() == "count":
        print(len(ops))
    else:
        ended.set()
        thread.join()
        with open(log, "w") as file:
            json.dump(ops, file)
        print(len(ops))
