"""Keys and prompts are found nowhere after a run in which everything goes wrong: providers that echo keys,
errors, hang-ups, panics and aborts in mid-request, debug logging. Looked for in logs, the journal, events,
files, core dumps, the memory of every process, and the answers that agents got.

The canaries are fake. Where one may be, it is looked for as well: a search that finds nothing there would
prove nothing elsewhere.
"""

import re
from pathlib import Path

from boot import until
from case import BIN, OPERATOR, OPERATOR_KEY, Installed
from takeover import PANIC_PLACE, Takeover, memory_of

TENANT_KEY = "fake-tenant-key-canary-9Zw4"
PROMPT = "canary-prompt-the-quick-brown-vixen"
UNITS = ("aex-admin.service", "aex-egress.service", "aex-proxy@1.service")
# Where the operator put it, and the copies that systemd hands to the egress.
MAY_HAVE_KEY = ("/etc/aex/keys/sim", "/run/credentials/aex-egress.service/keys_sim")
READS_BODY = "<aex_proxy::request::strict::TopLevel as serde_core::de::Visitor>::visit_map"
READS_ANSWER = "aex_egress::attach::clean_answer"
DECIDES = "aex_admin::writer::requests::<impl aex_admin::writer::Writer>::decide_for"
# Where each program panics in the middle of a request, and what of its memory the panic's message quotes.
PANICS = (
    ("aex-proxy@1.service", READS_BODY, PROMPT),
    ("aex-proxy@1.service", READS_BODY, TENANT_KEY),
    ("aex-egress.service", READS_ANSWER, OPERATOR_KEY),
    ("aex-egress.service", READS_ANSWER, TENANT_KEY),
    # It has neither, so it is given one.
    ("aex-admin.service", DECIDES, PROMPT),
)


class Canaries(Installed):
    """Each test looks elsewhere, after the same trouble."""

    panics = 0
    answers = None

    def setUp(self):
        if self.answers is not None:
            return
        boot = self.boot
        for program in ("admin", "egress", "proxy"):
            boot.write(f"/etc/aex/{program}.env", "AEX_LOG=debug\nRUST_BACKTRACE=full\n")
        # Cores are asked for, and the units must refuse.
        boot.run("mkdir -p /etc/systemd/system.conf.d; mkdir -p /var/crash")
        boot.run("systemctl restart aex-admin.service aex-egress.service aex-proxy@1.service")
        until(lambda: boot.get("/readyz").status == 200, 20, "it serves")
        type(self).answers = []
        self.trouble()

    def tried(self, token, **more):
        answer = self.boot.ask(token, text=PROMPT, **more)
        self.answers.append(answer.head + answer.body)
        return answer

    def trouble(self):
        """One of everything that goes wrong. Nothing of it is waited for but its answer."""
        boot = self.boot
        plain = self.agent("plain", "1.00", options="--max-output-tokens 50")
        owner = self.agent("owner", "1.00", options="--allow-passthrough")
        poor = self.agent("poor", "0.000001")
        own = [f"x-aex-provider-key: {TENANT_KEY}"]
        for behaviour in (
            {}, {"status": 401, "echo_authorization": True}, {"status": 500, "echo_authorization": True},
            {"status": 429}, {"raw_body": "{not json"}, {"drop": True}, {"cut_after_chunks": 1},
            {"omit_usage": True},
        ):  # fmt: skip
            boot.behave(**behaviour)
            for token, headers in ((plain, []), (owner, own)):
                for stream in (False, True):
                    self.tried(token, headers=headers, stream=stream)
        boot.behave()
        self.assertEqual(self.tried(poor).status, 402)
        self.assertEqual(self.tried("aex_no_such_token").status, 401)
        # A key where none is allowed, in the wrong place, and one that is malformed.
        self.assertEqual(self.tried(plain, headers=own).status, 403)
        self.tried(TENANT_KEY)
        self.tried(owner, headers=[f"x-aex-provider-key: {TENANT_KEY}\t{TENANT_KEY}"])
        boot.http("POST", f"/v1/chat/completions?key={TENANT_KEY}", token=owner, body={"model": PROMPT})
        boot.http("POST", "/v1/chat/completions", token=owner, body={"model": "m", PROMPT: TENANT_KEY})
        # Aborted while it carries a request: what a panic comes to where nothing catches it.
        for unit in UNITS:
            boot.behave(hang=True)
            hanging = self.start_request(owner, own)
            until(lambda: boot.bill()["in_flight"] > 0, 10, "a request under way")
            pid = boot.main_pid(unit)
            boot.run(f"kill -ABRT {pid}")
            until(lambda: boot.main_pid(unit) not in (0, pid), 20, f"{unit} comes back")
            boot.behave()
            self.answers.append(hanging.communicate(timeout=40)[0])
            self.is_well()
        # Last, so that those who survive it are looked into.
        for unit, function, text in PANICS:
            token, headers = (plain, []) if text == OPERATOR_KEY else (owner, own)
            self.panic(unit, function, text, token, headers)
        self.assertEqual(self.tried(owner, headers=own).status, 200)

    def start_request(self, token, headers):
        words = ["curl", "-sS", "--max-time", "20", "http://127.0.0.1:9000/v1/chat/completions",
                 "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json",
                 "-d", '{"model":"m","max_tokens":20,"messages":[{"role":"user","content":"%s"}]}' % PROMPT]  # fmt: skip
        return self.boot.start(words + [word for line in headers for word in ("-H", line)])

    def is_well(self):
        boot = self.boot
        until(lambda: boot.get("/readyz").status == 200, 20, "it serves again")
        until(lambda: boot.bill()["in_flight"] == 0, 30, "the provider is done")

    def panic(self, unit, function, text, token, headers):
        """A program panics over `text` while it has a request, be it caught there or not."""
        boot = self.boot
        name = unit.split(".")[0].split("@")[0]
        pid = boot.main_pid(unit)
        with Takeover(self.thread(boot.outer_pid(pid), function)) as taken:
            taken.arm(BIN / name, function)
            request = self.start_request(token, headers)
            taken.panic(text, planted=function == DECIDES)
        self.answers.append(request.communicate(timeout=40)[0])
        type(self).panics += 1
        until(lambda: self.panics_told() == self.panics, 10, "the panic is told")
        if function == DECIDES:
            until(lambda: boot.main_pid(unit) not in (0, pid), 20, f"{unit} comes back")
        else:
            self.assertEqual(boot.main_pid(unit), pid, "a request of it ended, and no more")
        self.is_well()

    def thread(self, pid, function):
        """Which of a process's threads runs a function of those above."""
        if function != DECIDES:
            return pid
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return next(int(task.name) for task in tasks if (task / "comm").read_text() == "writer\n")

    def panics_told(self):
        return self.boot.out("journalctl --no-pager -o cat").count(f"panicked at {PANIC_PLACE}")

    def files_with(self, text, *places):
        found = self.boot.run(
            ["grep", "-rlaF", "--devices=skip", "-e", text, *places], check=False
        ).stdout.split()
        # The simulated provider, which is told both, and the log of this test's own commands.
        return [path for path in found if not path.startswith("/opt/sim")]

    def memory_with(self, pid, texts):
        """Which of them a process has in memory, read from outside as root."""
        found = set()
        for _, data in memory_of(self.boot.outer_pid(pid)):
            found |= {text for text in texts if text.encode() in data}
        return found

    def test_they_are_found_nowhere_else(self):
        boot = self.boot
        canaries = (OPERATOR_KEY, TENANT_KEY, PROMPT)

        told = "\n".join(self.answers)
        for key in (OPERATOR_KEY, TENANT_KEY):
            # A key that its own sender is told again by its provider is not AEX's to keep from it.
            lines = [line for line in told.splitlines() if key in line]
            if key == OPERATOR_KEY:
                self.assertEqual(lines, [])
        journal = boot.out("journalctl --no-pager -o export")
        # It does say a great deal: else nothing would be shown by what it does not say.
        self.assertGreater(len(re.findall("DEBUG", journal)), 10)
        events = boot.out("aex ledger export --format jsonl", user=OPERATOR)
        self.assertGreater(events.count("usage.commit"), 10)
        for text in canaries:
            self.assertNotIn(text, journal)
            self.assertNotIn(text, events)
        # The key where it lies, that the search is known to find things.
        found = self.files_with(OPERATOR_KEY, "/etc", "/var", "/run", "/tmp", "/root", "/home", "/usr/share")
        self.assertEqual(sorted(found), sorted(set(found) & set(MAY_HAVE_KEY)))
        self.assertIn(MAY_HAVE_KEY[0], found)
        for text in (TENANT_KEY, PROMPT):
            self.assertEqual(self.files_with(text, "/etc", "/var", "/run", "/tmp", "/root", "/home"), [])

    def test_no_core_is_left(self):
        boot = self.boot
        cores = boot.out(
            "find / -xdev \\( -name 'core' -o -name 'core.*' -o -name '*.core' \\) -type f -size +64k"
            " -not -path '/proc/*' -not -path '/sys/*'"
        )
        self.assertEqual(cores, "")
        self.assertEqual(boot.out("ls -A /var/lib/systemd/coredump 2>/dev/null || true"), "")

    def test_no_process_has_them_in_memory_once_it_is_done(self):
        boot = self.boot
        allowed = {"aex-egress.service": {OPERATOR_KEY}}
        for unit in UNITS:
            pid = boot.main_pid(unit)
            found = self.memory_with(pid, (OPERATOR_KEY, TENANT_KEY, PROMPT))
            self.assertEqual(found, allowed.get(unit, set()), unit)
            for name in ("environ", "cmdline"):
                text = boot.run(["cat", f"/proc/{pid}/{name}"]).stdout
                for canary in (OPERATOR_KEY, TENANT_KEY, PROMPT):
                    self.assertNotIn(canary, text)
