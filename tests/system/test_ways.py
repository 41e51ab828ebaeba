"""That there is no way past AEX for users who are barred, and that a token is worth nothing where its
agent is not: tried as those users.
"""

import re
import subprocess

from case import OPERATOR, SIM, STRANGER, Installed, until

# The user that agents run as.
AGENTS = "agents"
# Calls the provider again and again until its standard input ends; tells how often it tried, and how often it
# came through.
CALLS = """
import select, socket, sys
host, port = sys.argv[1].split(":")
print("calling", flush=True)
tries = reached = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    tries += 1
    call = socket.socket()
    call.settimeout(1)
    try:
        call.connect((host, int(port)))
        reached += 1
    except OSError:
        pass
    call.close()
print(tries, reached)
"""


class WaysAround(Installed):
    def direct(self, user):
        """Whether a user reaches the provider past AEX."""
        tried = self.boot.run(["curl", "-sS", "--max-time", "5", f"http://{SIM}/_sim/bill"], user=user, check=False)
        return tried.returncode == 0

    def doctor(self, user):
        done = self.boot.run(f"aex doctor --as {user}", check=False)
        return done.returncode, done.stdout + done.stderr

    def test_who_is_barred_reaches_the_provider_through_aex_alone(self):
        boot = self.boot
        boot.run(f"useradd -m -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 {AGENTS}")
        token = self.agent("barred")
        # Before: the ways are open, and the doctor says so.
        self.assertTrue(self.direct(AGENTS))
        code, said = self.doctor(AGENTS)
        self.assertEqual(code, 1, said)
        self.assertRegex(said, rf"FAILED +ways around +{AGENTS} .* can reach sim")
        rules = boot.out("cat /etc/aex/aex.nft")
        rules = re.sub(r"# elements = .*", f'elements = {{ "{AGENTS}" }}', rules)
        boot.write("/etc/aex/aex.nft", rules, 0o640, "root:root")
        boot.run("systemctl enable --now nftables-aex.service")

        self.assertFalse(self.direct(AGENTS))
        self.assertTrue(self.direct(STRANGER))
        for place in ("8.8.8.8:443", "[2001:db8::1]:443", "127.0.0.1:22", "[::1]:9000"):
            tried = boot.run(["curl", "-sS", "--max-time", "5", f"http://{place}/"], user=AGENTS, check=False)
            # Refused at once, by the rule; nothing waits for what will never come.
            self.assertIn(tried.returncode, (7,), f"{place}: {tried.stderr}")
        sent = boot.run(
            ["python3", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))"],
            user=AGENTS, check=False,
        )  # fmt: skip
        self.assertNotEqual(sent.returncode, 0)
        self.assertEqual(self.ask(token, user=AGENTS).status, 200)
        code, said = self.doctor(AGENTS)
        self.assertEqual(code, 0, said)
        # A range of other uids would be another way, and the doctor knows it.
        boot.run(f"echo {AGENTS}:100000:65536 >> /etc/subuid")
        self.addCleanup(boot.run, f"sed -i /^{AGENTS}:/d /etc/subuid")
        code, said = self.doctor(AGENTS)
        self.assertEqual(code, 1, said)
        self.assertIn("/etc/subuid", said)
        boot.run(f"sed -i /^{AGENTS}:/d /etc/subuid")
        # So is sudo, whatever the user's groups: its own word counts.
        rule = "/etc/sudoers.d/agents"
        self.addCleanup(boot.run, f"rm -f {rule}")
        for may, fails in (("(root) NOPASSWD: /usr/bin/id", True), ("(games) /usr/bin/id", True), (None, False)):
            boot.write(rule, f"{AGENTS} ALL={may}\n" if may else f"{STRANGER} ALL=(ALL) ALL\n", 0o440, "root:root")
            code, said = self.doctor(AGENTS)
            self.assertEqual(code, int(fails), said)
            self.assertRegex(said, rf"{'FAILED' if fails else 'ok'} +ways around +{AGENTS} .* by sudo")
        # Nothing that is done to AEX opens the network, nor what flushes all other rules.
        boot.run("systemctl stop aex.target 'aex-*'; systemctl start aex.target")
        self.assertFalse(self.direct(AGENTS))
        for order in ("start", "reload", "restart", "stop"):
            boot.run(f"systemctl {order} nftables.service")
            self.assertFalse(self.direct(AGENTS), order)
        # A stop leaves them in force. They go when they are deleted by name, which the doctor sees, and what it
        # says to do brings them back.
        boot.run("systemctl stop nftables-aex.service")
        self.assertFalse(self.direct(AGENTS))
        boot.run("nft delete table inet aex")
        self.assertTrue(self.direct(AGENTS))
        done = boot.run("aex doctor", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nftables-aex.service is enabled, and its rules are not in force", done.stdout)
        self.assertIn("systemctl restart nftables-aex", done.stdout)
        boot.run("systemctl restart nftables-aex")
        self.assertFalse(self.direct(AGENTS))
        boot.run("systemctl disable --now nftables-aex.service; nft delete table inet aex")

    def calls_during(self, user, orders):
        """How often a user tried to reach the provider while systemd carries out orders, and how often it did."""
        caller = self.boot.start(["python3", "-c", CALLS, SIM], user=user, stdin=subprocess.PIPE)
        self.assertEqual(caller.stdout.readline(), "calling\n")
        for order in orders:
            # Else systemd takes so many starts for a failure.
            self.boot.run(f"systemctl {order}; systemctl reset-failed nftables nftables-aex", check=False)
        said, _ = caller.communicate(timeout=20)
        tries, reached = map(int, said.split())
        return tries, reached

    def test_no_moment_is_open_while_rules_are_loaded_again(self):
        boot = self.boot
        user = "steady"
        boot.run(f"useradd -m -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 {user}")
        shipped = boot.out("cat /usr/share/aex/aex.nft") + "\n"
        rules = re.sub(r"# elements = .*", f'elements = {{ "{user}" }}', shipped)
        own = boot.out("cat /etc/nftables.conf") + "\n"
        self.addCleanup(boot.run, "systemctl disable --now nftables-aex; nft delete table inet aex; systemctl stop nftables", check=False)
        self.addCleanup(boot.write, "/etc/aex/aex.nft", shipped, 0o640, "root:root")
        self.addCleanup(boot.write, "/etc/nftables.conf", own, 0o755)
        boot.write("/etc/aex/aex.nft", rules, 0o640, "root:root")
        boot.run("systemctl start nftables.service; systemctl enable --now nftables-aex.service")
        orders = [f"{order} {unit}" for unit in ("nftables", "nftables-aex") for order in ("reload", "restart")] * 4
        orders += ["stop nftables", "start nftables", "stop nftables-aex", "start nftables-aex"]
        tries, reached = self.calls_during(user, orders)
        self.assertEqual(reached, 0, f"of {tries}")
        self.assertGreater(tries, 1000)
        # The control: the same calls of somebody who is not barred.
        tries, reached = self.calls_during(STRANGER, ["reload nftables"])
        self.assertGreater(reached, tries // 2)
        # A bad edit keeps what is in force, and the host's own rules are its own matter.
        boot.write("/etc/aex/aex.nft", rules.replace(f'"{user}"', f'"{user}", "nobody-of-that-name"'), 0o640, "root:root")
        boot.write("/etc/nftables.conf", own + "table inet mine {\n}\n", 0o755)
        tries, reached = self.calls_during(user, orders)
        self.assertEqual(reached, 0, f"of {tries}")
        self.assertIn("table inet mine", boot.out("nft list tables"))
        self.assertTrue(boot.is_active("nftables.service"))
        # Nor does a bad file of the host's own take anything away.
        boot.write("/etc/nftables.conf", own + "nonsense\n", 0o755)
        self.assertNotEqual(boot.run("systemctl reload nftables", check=False).returncode, 0)
        self.assertFalse(self.direct(user))
        self.assertIn("table inet mine", boot.out("nft list tables"))
        boot.write("/etc/nftables.conf", own, 0o755)
        boot.run("systemctl reload nftables")
        self.assertNotIn("table inet mine", boot.out("nft list tables"))
        self.assertFalse(self.direct(user))
        # Where AEX bars nobody, nothing of it is left there.
        boot.run("nft delete table inet aex; systemctl reload nftables; systemctl restart nftables")
        self.assertNotIn("aex", boot.out("nft list tables"))

    def test_the_doctor_finds_nothing_wrong_with_what_was_installed(self):
        done = self.boot.run("aex doctor", check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for line in ("boundary", "files", "clock", "providers", "sandbox"):
            self.assertRegex(done.stdout, rf"ok +{line}", line)
        self.assertNotIn("warning", done.stdout)
        # What is opened to others is found.
        self.boot.run("chmod 644 /var/lib/aex/aex.db")
        self.addCleanup(self.boot.run, "chmod 600 /var/lib/aex/aex.db")
        done = self.boot.run("aex doctor", check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("/var/lib/aex/aex.db is open to other users", done.stdout)

    def test_the_doctor_judges_where_a_link_leads(self):
        boot = self.boot
        boot.run("mkdir -m 755 /srv/aex; mv /etc/aex/models.yaml /srv/aex/; ln -s /srv/aex/models.yaml /etc/aex/")
        self.addCleanup(boot.run, "rm /etc/aex/models.yaml; mv /srv/aex/models.yaml /etc/aex/; rmdir /srv/aex")
        done = boot.run("aex doctor", check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        boot.run("chmod 777 /srv/aex")
        done = boot.run("aex doctor", check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stdout, "FAILED +files +/etc/aex/models.yaml leads through /srv/aex")

    def test_who_takes_the_port_is_found(self):
        boot = self.boot
        boot.run("systemctl stop aex.target aex-proxy.socket 'aex-proxy@*'")
        impostor = boot.start(["python3", "-m", "http.server", "--bind", "127.0.0.1", "9000"], user=STRANGER)
        self.addCleanup(boot.run, "systemctl start aex.target")
        self.addCleanup(impostor.wait)
        self.addCleanup(impostor.kill)
        until(lambda: boot.run("curl -sS --max-time 1 http://127.0.0.1:9000/", check=False).returncode == 0, 10, "it listens")
        done = boot.run("aex doctor", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, "FAILED +port .*is held by uid")


class StolenTokens(Installed):
    def test_a_bound_token_works_for_its_user_on_a_unix_socket_alone(self):
        boot = self.boot
        boot.run("useradd -m alice")
        boot.run("aex group create red", user=OPERATOR)
        token = self.agent("hers", options="--group red --uid alice")
        free = self.agent("anybodys", options="--group red")
        sockets = "aex-admin-worker@red.socket aex-egress@red.socket aex-proxy-group@red.socket"
        boot.run(f"systemctl enable {sockets} aex-proxy-group@red.service")
        boot.run("systemctl restart aex.target")
        door = "/run/aex/agents/red.sock"
        self.assertEqual(boot.ask(token, socket=door, user="alice").status, 200)
        for thief in (STRANGER, "nobody", None):
            stolen = boot.ask(token, socket=door, user=thief)
            self.assertEqual(stolen.status, 401, f"{thief}: {stolen.body}")
            self.assertEqual(stolen.json["detail"], "Invalid API token")
        # Its operator is told where it is served, and nobody else is sent there.
        told = boot.aex("agent rotate-token hers")
        self.assertEqual(told["base_url"], "http+unix://%2Frun%2Faex%2Fagents%2Fred.sock/v1")
        token = told["token"]
        self.assertEqual(boot.aex("agent create outside 1.00 60")["base_url"], "http://127.0.0.1:9000/v1")
        status = boot.aex("status")
        groups = {worker.get("group") for worker in status["workers"]}
        self.assertEqual(groups, {None, "red"})
        # A confined command of an operator's goes the same way, and finds nothing else.
        me = f"curl -fsS --unix-socket {door} http://aex/v1/aex/me -H \"Authorization: Bearer $OPENAI_API_KEY\""
        boot.write("/tmp/confined.sh", f"{me}; echo; ls -A /run/aex /var/lib/aex /etc/aex; aex status 2>&1; true\n")
        said = boot.out("cd /tmp && aex run -a anybodys --confine -- sh /tmp/confined.sh", user=OPERATOR)
        self.assertIn('"name":"anybodys"', said)
        for empty in ("/etc/aex:\n\n", "/run/aex:\nagents\n", "/var/lib/aex:\n", "cannot reach the kernel"):
            self.assertIn(empty, said)
        for hidden in ("aex.db", "models.yaml"):
            self.assertNotIn(hidden, said)
        # Over TCP nobody knows who asks.
        self.assertEqual(boot.ask(token, user="alice").status, 401)
        self.assertEqual(boot.ask(free, socket=door, user=STRANGER).status, 200)
        # The operator sees the attempts.
        until(
            lambda: "request.refused" in boot.out("aex ledger tail -n 50", user=OPERATOR), 90, "the attempts are told"
        )


class StrictByok(Installed):
    def test_a_start_with_an_operators_key_is_refused_and_the_place_named(self):
        boot = self.boot
        strict = "keys: passthrough\n" + self.settings()
        boot.write("/etc/aex/models.yaml", strict, 0o640, "root:aex-admin")
        boot.run("systemctl restart aex-admin.service; systemctl restart --no-block aex-egress.service")
        until(lambda: boot.run("systemctl is-failed aex-egress.service", check=False).returncode == 0, 20, "refused")
        state = boot.out("systemctl show -P ExecMainStatus aex-egress.service")
        self.assertEqual(state.strip(), "78")
        self.assertIn("keys_sim", boot.journal("aex-egress.service"))
        self.assertEqual(boot.get("/readyz").status, 503)
        done = boot.run("aex doctor", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"FAILED +keys .*/etc/aex/keys/sim")
        boot.run("rm /etc/aex/keys/sim; systemctl restart aex-egress.service")
        until(lambda: boot.get("/readyz").status == 200, 20, "it serves")
        token = self.agent("owner", options="--allow-passthrough")
        self.assertEqual(self.ask(token).status, 403)
        own = ["x-aex-provider-key: fake-tenant-key"]
        self.assertEqual(boot.ask(token, headers=own).status, 200)
