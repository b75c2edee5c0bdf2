#!/usr/bin/env python3
"""Whether a Galera cluster loses writes that it has said were committed. It needs no client library.

    tools/galera python3 tools/galera_prepare.py prepared|early|text [SECONDS]

Six clients at the nodes of $GALERA run transactions of one to four gets and appends at SERIALIZABLE, in the
server's own protocol, and note the flag "in a transaction" of each answer. A row keeps all that was appended to
it, so what is gone can be told. `prepared` prepares each statement just before it runs, `early` all of them
before the transaction begins, `text` none. Prints the counts and the first losses, answer by answer.
"""
import multiprocessing
import os
import random
import re
import socket
import struct
import sys
import time

IN_TRANSACTION = 1


class Failed(Exception):
    pass


class Client:
    def __init__(self, address):
        host, port, database = re.match(r"mysql://root@([^:]+):(\d+)/(\w+)", address).groups()
        self.socket = socket.create_connection((host, int(port)))
        self.file = self.socket.makefile("rb")
        self.receive()
        self.number = 1
        # Protocol 4.1, transactions, a database, a plugin's name, secure connection; no password.
        self.send(struct.pack("<IIB23x", 0x8A208, 1 << 24, 45) + b"root\0\0" + database.encode() + b"\0mysql_native_password\0")
        self.answer()

    def receive(self):
        head = self.file.read(4)
        self.number = head[3] + 1
        return self.file.read(head[0] | head[1] << 8 | head[2] << 16)

    def send(self, body):
        self.socket.sendall(struct.pack("<I", len(body))[:3] + bytes([self.number & 255]) + body)
        self.number += 1

    def command(self, body):
        self.number = 0
        self.send(body)

    def packet(self):
        packet = self.receive()
        if packet[0] == 0xFF:
            raise Failed(packet[9:].decode())
        return packet

    def answer(self):
        """Whether the session is in a transaction after it, and the rows."""
        packet = self.packet()
        if packet[0] == 0:
            return struct.unpack("<H", packet[3:5])[0] & IN_TRANSACTION, []
        for _ in range(packet[0] + 1):
            self.packet()
        rows = []
        while True:
            packet = self.packet()
            if packet[0] == 0xFE and len(packet) < 9:
                return struct.unpack("<H", packet[3:5])[0] & IN_TRANSACTION, rows
            rows.append(packet)

    def query(self, text):
        self.command(b"\x03" + text.encode())
        return self.answer()

    def prepare(self, text):
        self.command(b"\x16" + text.encode())
        statement, columns, _ = struct.unpack("<IHH", self.packet()[1:9])
        for _ in range(columns + 1 if columns else 0):
            self.packet()
        return statement

    def execute(self, statement):
        self.command(b"\x17" + struct.pack("<IBI", statement, 0, 1))
        return self.answer()


def transaction(client, mode, plan):
    """What was answered, step by step; raises Failed where the server says that it failed."""
    client.query("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    texts = [
        f"UPDATE lost SET v = CONCAT(v, ' {mark}') WHERE k = {key}" if mark else f"SELECT RIGHT(v, 40) FROM lost WHERE k = {key}"
        for key, mark in plan
    ]
    early = [client.prepare(text) for text in texts] if mode == "early" else []
    steps = [("START TRANSACTION", client.query("START TRANSACTION")[0])]
    for at, text in enumerate(texts):
        if mode == "text":
            inside, _ = client.query(text)
        else:
            inside, _ = client.execute(early[at] if early else client.prepare(text))
        steps.append((text, inside))
    return steps + [("COMMIT", client.query("COMMIT")[0])]


def work(number, address, mode, seconds, barrier, results):
    rng, committed, failed = random.Random(number), [], 0
    barrier.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        base = f"t{number}.{len(committed)}.{failed}"
        plan = [(rng.randint(1, 3), f"{base}.{at}" if rng.random() < 0.5 else None) for at in range(rng.randint(1, 4))]
        client = Client(address)
        try:
            committed.append((plan, transaction(client, mode, plan)))
        except Failed:
            failed += 1
        client.socket.close()
    results.put((committed, failed))


def main():
    nodes, mode = os.environ["GALERA"].split(","), sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 25
    first = Client(nodes[0])
    first.query("CREATE TABLE lost (k INT PRIMARY KEY, v LONGTEXT)")
    first.query("INSERT INTO lost VALUES (1, ''), (2, ''), (3, '')")
    for node in nodes:
        client = Client(node)
        client.query("SET SESSION wsrep_sync_wait = 15")
        client.query("SELECT * FROM lost")
    results, barrier = multiprocessing.Queue(), multiprocessing.Barrier(6)
    clients = [
        multiprocessing.Process(target=work, args=(one, nodes[one % len(nodes)], mode, seconds, barrier, results))
        for one in range(6)
    ]
    for one in clients:
        one.start()
    outcomes = [results.get() for _ in clients]
    first.query("SET SESSION wsrep_sync_wait = 15")
    kept = {mark for row in first.query("SELECT v FROM lost")[1] for mark in re.findall(rb"t[0-9.]+", row)}
    committed = [one for ours, _ in outcomes for one in ours]
    gone = lambda plan: [mark for _, mark in plan if mark and mark.encode() not in kept]
    fell_out = lambda steps: any(not inside for _, inside in steps[:-1])
    lost = [(plan, steps) for plan, steps in committed if gone(plan)]
    print(f"{mode}: {len(committed)} committed, {sum(failed for _, failed in outcomes)} failed; of the committed {len(lost)} lost writes")
    others = sum(fell_out(steps) for plan, steps in committed if not gone(plan))
    print(f"answered 'in no transaction' before COMMIT: {sum(fell_out(steps) for _, steps in lost)} of the lost, {others} of the others")
    for plan, steps in lost[:3]:
        print(f"\nlost: {' '.join(gone(plan))}")
        for text, inside in steps:
            print(f"  ok, in {'a' if inside else 'no'} transaction  {text}")


if __name__ == "__main__":
    main()
