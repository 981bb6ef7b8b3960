# Commits one number after the other to a database in a folder and tells of each: when it was begun, and when it was
# acknowledged.
import itertools, sqlite3, subprocess, sys, time

kind, folder = sys.argv[1:]


def sqlite():
    database = sqlite3.connect(folder + "/app.db", isolation_level=None)
    assert database.execute("pragma journal_mode=wal").fetchone() == ("wal",)
    database.execute("pragma synchronous=full")
    database.execute("create table log (n integer primary key)")
    return lambda n: database.execute("insert into log values (?)", (n,))


def postgres():
    command = ["psql", "-XqAt", "-U", "postgres", "-h", folder]
    psql = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    # a row is printed once the whole answer is there, by which time it is committed
    def ask(sql):
        psql.stdin.write(sql + "\n")
        psql.stdin.flush()
        return psql.stdout.readline()

    assert ask("create table log (n integer primary key); select 'made';") == "made\n"

    def commit(n):
        assert ask(f"insert into log values ({n}) returning n;") == f"{n}\n"

    return commit


commit = {"sqlite": sqlite, "postgres": postgres}[kind]()
for n in itertools.count(1):
    begun = time.time()
    commit(n)
    print(n, begun, time.time(), flush=True)
