"""The services at work: a request through a socket-activated worker; killed, hung and rolled."""

import json
import time

from boot import until
from case import OPERATOR, PORT, Installed, path_of

LOAD = path_of("load.py")
SERVICES = ("aex-admin.service", "aex-egress.service", "aex-proxy@1.service", "aex-proxy@2.service")


class Serving(Installed):
    workers = 2

    def test_a_request_is_served_and_charged(self):
        token = self.agent("first", "0.01")
        plain = self.ask(token)
        self.assertEqual(plain.status, 200, plain)
        self.assertEqual(len(plain.json["choices"]), 1)
        streamed = self.ask(token, stream=True)
        self.assertEqual(streamed.status, 200)
        self.assertTrue(streamed.body.rstrip().endswith("data: [DONE]"), streamed.body)
        spent = self.boot.aex("agent show first")["spent_micro"]
        self.assertGreater(spent, 0)
        self.assertEqual(self.boot.aex("status")["boundary"], "enforced")
        self.assertEqual(self.ask("not-a-token").status, 401)
        self.boot.run("aex agent set first --budget 0", user=OPERATOR)
        self.assertEqual(self.ask(token).status, 402)
        self.assert_sound()

    def test_a_connection_starts_the_worker_that_is_needed(self):
        token = self.agent("socket")
        self.boot.run("systemctl stop aex-proxy@1.service aex-proxy@2.service")
        self.assertFalse(self.boot.is_active("aex-proxy@1.service"))
        self.assertEqual(self.ask(token).status, 200)
        self.assertTrue(self.boot.is_active("aex-proxy@1.service"))
        self.boot.run("systemctl start aex-proxy@2.service")

    def test_nobody_takes_the_port_while_workers_are_down(self):
        self.boot.run("systemctl kill -s KILL --kill-who=main aex-proxy@1.service aex-proxy@2.service")
        bind = f"import socket; s = socket.socket(); s.bind(('127.0.0.1', {PORT}))"
        tried = self.boot.run(["python3", "-c", bind], user="mallory", check=False)
        self.assertIn("Address already in use", tried.stderr)

    def test_it_survives_a_kill_of_each_service(self):
        token = self.agent("killed")
        for unit in SERVICES:
            with self.subTest(unit):
                # Something is under way when it is killed.
                self.boot.behave(times=1, delay_ms=300)
                under_way = self.boot.start(
                    ["curl", "-s", "-m", "20", f"http://127.0.0.1:{PORT}/v1/chat/completions",
                     "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json",
                     "-d", '{"model":"m","max_tokens":20,"messages":[{"role":"user","content":"x"}]}'])  # fmt: skip
                until(lambda: self.boot.bill()["in_flight"], 10, "a request is under way")
                pid = self.boot.main_pid(unit)
                self.boot.run(f"systemctl kill -s KILL --kill-who=main {unit}")
                self.assert_serves(token)
                until(
                    lambda: self.boot.main_pid(unit) not in (0, pid), 10, f"{unit} has a new process"
                )
                under_way.communicate(timeout=30)
        # Nothing stays held that nobody carries, and every cent is accounted for.
        until(lambda: self.boot.aex("agent show killed")["reserved_micro"] == 0, 30, "no hold is left")
        self.assert_sound()

    def test_a_service_that_hangs_is_replaced(self):
        token = self.agent("hung")
        for unit in SERVICES[:3]:
            with self.subTest(unit):
                folder = f"/run/systemd/system/{unit}.d"
                self.boot.write(f"{folder}/watchdog.conf", "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n")
                self.boot.run(f"systemctl daemon-reload; systemctl restart {unit}")
                pid = self.boot.main_pid(unit)
                self.boot.run(f"kill -STOP {pid}")
                until(lambda: self.boot.main_pid(unit) not in (0, pid), 15, f"{unit} is replaced")
                self.assertIn("Watchdog timeout", self.boot.journal(unit))
                self.assert_serves(token)
                self.boot.run(f"rm -r {folder}; systemctl daemon-reload; systemctl restart {unit}")
        # One that is well is left alone, past its time.
        self.assert_serves(token)

    def test_workers_are_rolled_under_load_and_no_request_fails(self):
        token = self.agent("rolled", "100.00", 1_000_000)
        # Long enough that every restart meets requests in flight.
        self.boot.behave(natural_tokens=10, chunk_delay_ms=10)
        self.addCleanup(self.boot.behave)
        load = self.boot.start(["python3", "-", str(PORT), token, "8", "8"], stdin=LOAD.open())
        for _ in range(3):
            for worker in (1, 2):
                pid = self.boot.main_pid(f"aex-proxy@{worker}.service")
                self.boot.run(f"systemctl restart aex-proxy@{worker}.service")
                self.assertNotEqual(self.boot.main_pid(f"aex-proxy@{worker}.service"), pid)
        told, _ = load.communicate(timeout=60)
        figures = json.loads(told.splitlines()[-1])
        self.assertEqual(figures["failed"], [], told)
        self.assertGreater(figures["served"], 200, figures)
        self.assertLess(figures["slowest_ms"], 5000)
        bill = self.boot.bill()
        self.assertGreaterEqual(bill["requests"], figures["served"])
        self.assert_sound()

    def test_it_scales_by_enabling_instances(self):
        token = self.agent("scaled")
        self.boot.run("systemctl enable --now aex-proxy@{3..4}.service".replace("{3..4}", "3")
                      + " aex-proxy@4.service")  # fmt: skip
        until(
            lambda: {w["worker"] for w in self.boot.aex("status")["workers"]} == {1, 2, 3, 4},
            10, lambda: str(self.boot.aex("status")),
        )  # fmt: skip
        self.assertEqual(self.ask(token).status, 200)
        self.boot.run("systemctl disable --now aex-proxy@3.service aex-proxy@4.service")
        self.assertEqual(self.ask(token).status, 200)


class Draining(Installed):
    def test_a_stop_finishes_what_is_under_way(self):
        token = self.agent("drained")
        self.boot.behave(natural_tokens=20, chunk_delay_ms=100)
        stream = self.boot.start(
            ["curl", "-sN", f"http://127.0.0.1:{PORT}/v1/chat/completions", "-H",
             f"Authorization: Bearer {token}", "-H", "Content-Type: application/json", "-d",
             '{"model":"m","stream":true,"max_tokens":20,"messages":[{"role":"user","content":"x"}]}'])  # fmt: skip
        until(lambda: self.boot.bill()["in_flight"], 10, "a stream is under way")
        began = time.monotonic()
        self.boot.run("systemctl stop aex.target 'aex-*'")
        self.assertGreater(time.monotonic() - began, 0.5)
        said, _ = stream.communicate(timeout=10)
        self.assertTrue(said.rstrip().endswith("data: [DONE]"), said)
        # Workers first, then the way out, then the ledger, which has heard how it ended.
        stopped = [line for line in self.boot.journal().splitlines() if "Stopped aex-" in line][-3:]
        order = [unit for line in stopped for unit in ("aex-proxy", "aex-egress", "aex-admin") if f"Stopped {unit}" in line]
        self.assertEqual(order, ["aex-proxy", "aex-egress", "aex-admin"], stopped)
        self.boot.behave()
        self.boot.run("systemctl start aex.target")
        self.assert_serves(token)
        shown = self.boot.aex("agent show drained")
        self.assertEqual(shown["reserved_micro"], 0)
        last = self.boot.out("aex --json ledger tail -n 50", user=OPERATOR)
        self.assertNotIn('"ceiling"', last)
