"""What docs/OPERATIONS.md tells operators to do, done: each command of that page that no other test runs."""

import subprocess

from boot import until
from case import OPERATOR, Installed

# Connects to a Unix socket again and again until its standard input ends.
CALLS = """
import select, socket, sys
print("calling", flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    call = socket.socket(socket.AF_UNIX)
    call.settimeout(0.05)
    try:
        call.connect(sys.argv[1])
    except OSError:
        pass
    call.close()
"""
EDIT = "/etc/systemd/system/aex-proxy.socket.d"
# Connects as often as it can, says how often, and holds on to it all.
HOLD = """
import socket, sys
held = []
try:
    for _ in range(300):
        one = socket.socket(socket.AF_UNIX)
        one.connect(sys.argv[1])
        held.append(one)
except OSError:
    pass
print(len(held), flush=True)
sys.stdin.read()
"""


class Operations(Installed):
    def test_a_backup_is_restored_as_the_page_says(self):
        boot = self.boot
        token = self.agent("before")
        self.assertEqual(self.ask(token).status, 200)
        boot.run("cd ~olga && aex ledger backup kept.db && aex ledger checkpoint > kept.jsonl", user=OPERATOR)
        self.assertEqual(boot.out("stat -c '%U %a' /home/olga/kept.db"), "olga 600")
        boot.run("aex audit --against /home/olga/kept.jsonl && aex ledger replay", user=OPERATOR)
        self.agent("after")
        boot.run("systemctl stop aex.target 'aex-*'")
        boot.run("install -o aex -g aex-admin -m 600 /home/olga/kept.db /var/lib/aex/restore.db")
        restore = ("aex-egress --system --list-sent | setpriv --reuid=aex --regid=aex-admin --clear-groups "
                   "aex-admin restore --db /var/lib/aex/aex.db --from /var/lib/aex/restore.db")  # fmt: skip
        # It lacks an agent, and that is not passed over.
        self.assertNotEqual(boot.run(restore, check=False).returncode, 0)
        boot.run(restore + " --accept-loss")
        boot.run("rm /var/lib/aex/restore.db; systemctl start aex.target")
        self.assertEqual(boot.out("find /var/lib/aex ! -user aex"), "")
        self.assert_serves(token)
        boot.run("aex audit", user=OPERATOR)
        self.assertEqual([agent["name"] for agent in boot.aex("agent list")["agents"]], ["before"])

    def test_the_port_is_moved_where_no_user_can_take_it(self):
        boot = self.boot
        token = self.agent("moved")
        boot.write(f"{EDIT}/port.conf", "[Socket]\nListenStream=\nListenStream=127.0.0.1:900\n")
        boot.run("systemctl daemon-reload; systemctl stop 'aex-proxy*'; systemctl start aex.target")
        self.assertEqual(self.ask(token).status, 0)
        me = f"curl -fsS http://127.0.0.1:900/v1/aex/me -H 'Authorization: Bearer {token}'"
        boot.run(me, user="mallory")
        # Whoever is given a token is told the place, and a command is started with it.
        base_url = "http://127.0.0.1:900/v1"
        self.assertEqual(boot.aex("agent create newcomer 1.00 60")["base_url"], base_url)
        self.assertEqual(boot.out("aex run -a moved -- printenv OPENAI_BASE_URL").strip(), base_url)
        self.assertIn("900 is held by systemd", boot.run("aex doctor", check=False).stdout)
        barred = boot.run("aex doctor --as mallory", check=False).stdout
        self.assertRegex(barred, r"ok +agents' way .*reach AEX at 127\.0\.0\.1:900\b")
        boot.run(f"rm -r {EDIT}; systemctl daemon-reload; systemctl stop 'aex-proxy*'; systemctl start aex.target")
        self.assert_serves(token)

    def test_tls_comes_by_the_environment_and_is_renewed_by_a_reload(self):
        boot = self.boot
        token = self.agent("tls")

        def certify(name):
            boot.run(
                "cd /root && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
                f"-subj /CN={name} -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem "
                "&& install -m 640 -g aex-proxy cert.pem key.pem /etc/aex/tls/ && rm key.pem"
            )

        def shown():
            said = boot.run("openssl s_client -connect 127.0.0.1:9000 < /dev/null", check=False)
            return said.stdout

        certify("first")
        env = "AEX_TLS_CERT=/etc/aex/tls/cert.pem\nAEX_TLS_KEY=/etc/aex/tls/key.pem\n"
        boot.write("/etc/aex/proxy.env", env)
        boot.run("systemctl restart 'aex-proxy@*'")
        me = f"curl -fsS --cacert /root/cert.pem https://127.0.0.1:9000/v1/aex/me -H 'Authorization: Bearer {token}'"
        boot.run(me)
        self.assertIn("CN = first", shown())
        self.assertEqual(boot.aex("agent create secure 1.00 60")["base_url"], "https://127.0.0.1:9000/v1")
        pid = boot.main_pid("aex-proxy@1.service")
        certify("second")
        boot.run("systemctl reload 'aex-proxy@*'")
        until(lambda: "CN = second" in shown(), 10, "the new certificate is shown")
        self.assertEqual(boot.main_pid("aex-proxy@1.service"), pid)
        boot.run(me)
        boot.run("rm /etc/aex/proxy.env; systemctl restart 'aex-proxy@*'")
        self.assert_serves(token)

    def starts_from_now(self):
        """How often the ledger was started since, whenever it is asked."""
        cursor = self.boot.out("journalctl --no-pager -n 0 --show-cursor").split("cursor: ")[1].strip()
        read = f"journalctl --no-pager -o cat -u aex-admin.service --after-cursor '{cursor}'"
        return lambda: self.boot.out(read).count("Starting aex-admin.service")

    def refuse(self):
        """Settings that it refuses, and a start of the ledger with them."""
        boot = self.boot
        boot.run("cp -p /etc/aex/models.yaml /root/good.yaml")
        boot.write("/etc/aex/models.yaml", "providers:\n  sim:\n    base_url: 7\n", 0o640, "root:aex-admin")
        self.assertNotEqual(boot.run("systemctl restart aex-admin.service", check=False).returncode, 0)
        until(lambda: not boot.is_active("aex-admin.socket"), 10, "its sockets are closed")

    def test_agents_of_a_group_do_not_start_a_ledger_that_refused(self):
        boot = self.boot
        boot.run("aex group create red", user=OPERATOR)
        token = self.agent("hers", options="--group red")
        sockets = "aex-admin-worker@red.socket aex-egress@red.socket aex-proxy-group@red.socket"
        boot.run(f"systemctl enable {sockets} aex-proxy-group@red.service; systemctl restart aex.target")
        door = "/run/aex/agents/red.sock"
        until(lambda: boot.ask(token, socket=door).status == 200, 20, "its worker serves")
        starts = self.starts_from_now()
        self.refuse()
        for _ in range(3):
            self.assertIn(boot.ask(token, socket=door, limit_s=2).status, (0, 503))
        # Its worker is tried again and again, with pauses; its socket waits for it.
        tries = lambda: int(boot.property("aex-proxy-group@red.service", "NRestarts"))
        before = tries()
        until(lambda: tries() >= before + 3, 20, "it is tried again")
        self.assertTrue(boot.is_active("aex-proxy-group@red.socket"))
        self.assertEqual(starts(), 1)
        boot.run("cp -p /root/good.yaml /etc/aex/models.yaml; systemctl start aex.target")
        until(lambda: boot.ask(token, socket=door).status == 200, 20, "its worker serves again")
        boot.run(f"systemctl disable --now {sockets} aex-proxy-group@red.service; systemctl restart aex.target")
        self.assert_serves(token)

    def test_a_group_that_was_started_too_early_serves_after_a_restart(self):
        """Its sockets cannot be handed to programs that run; agents call meanwhile."""
        boot = self.boot
        boot.run("aex group create early", user=OPERATOR)
        token, other = self.agent("of-early", options="--group early"), self.agent("of-none")
        door = "/run/aex/agents/early.sock"
        caller = boot.start(["python3", "-c", CALLS, door], user="mallory", stdin=subprocess.PIPE)
        self.addCleanup(caller.communicate)
        self.assertEqual(caller.stdout.readline(), "calling\n")
        service = "aex-proxy-group@early.service"
        units = f"aex-proxy-group@early.socket {service} aex-admin-worker@early.socket aex-egress@early.socket"
        for unit in units.split():
            boot.run(f"systemctl enable --now --no-block {unit}", check=False)
        until(lambda: int(boot.property(service, "NRestarts")) >= 2, 20, boot.state)
        self.assertNotEqual(boot.ask(token, socket=door, limit_s=1).status, 200)
        self.assertEqual(boot.ask(other).status, 200)
        boot.run("systemctl restart aex.target")
        until(lambda: boot.ask(token, socket=door, limit_s=2).status == 200, 20, boot.state)
        self.assertEqual(boot.out("systemctl list-units --failed --no-legend --plain 'aex-*'"), "")
        boot.run(f"systemctl disable --now {units}; systemctl restart aex.target")
        self.assert_serves(other)

    def test_settings_that_are_wrong_at_the_start_end_it_once_and_are_named(self):
        boot = self.boot
        token = self.agent("settled")
        starts = self.starts_from_now()
        self.refuse()
        until(lambda: boot.run("systemctl is-failed aex-admin.service", check=False).returncode == 0, 10, "it ends")
        self.assertEqual(boot.out("systemctl show -P ExecMainStatus aex-admin.service").strip(), "78")
        status = boot.run("systemctl status aex-admin.service", check=False).stdout
        self.assertRegex(status, r"/etc/aex/models\.yaml:\d+:\d+: ")
        # Whoever calls does not start it again: agents, the other programs, which go on trying, an operator.
        for _ in range(5):
            self.assertEqual(self.ask(token).status, 503)
            self.assertNotEqual(boot.run("aex status", user=OPERATOR, check=False).returncode, 0)
        self.assertEqual(starts(), 1)
        # A start of the others asks for it, once each, and there it ends.
        boot.run("systemctl restart aex-egress.service aex-proxy@1.service")
        for _ in range(5):
            self.assertEqual(self.ask(token).status, 503)
        self.assertLessEqual(starts(), 3)
        # Nobody takes the agents' port meanwhile.
        self.assertTrue(boot.is_active("aex-proxy.socket"))
        done = boot.run("aex doctor", check=False)
        self.assertRegex(done.stdout, r"FAILED +config .*/etc/aex/models\.yaml:\d+:\d+: ")
        boot.run("cp -p /root/good.yaml /etc/aex/models.yaml; systemctl start aex.target")
        self.assert_serves(token)
        self.assertFalse(boot.is_active("aex-admin-refused.target"))
        # What ends it otherwise does not end it for good.
        pid = boot.main_pid("aex-admin.service")
        boot.run("systemctl kill -s KILL --kill-who=main aex-admin.service")
        until(lambda: boot.main_pid("aex-admin.service") not in (0, pid), 10, "it has a new process")
        self.assert_serves(token)

    def test_an_incident_is_ended(self):
        boot = self.boot
        token = self.agent("wild")
        boot.run("aex agent sever wild", user=OPERATOR)
        self.assertEqual(self.ask(token).status, 423)
        boot.run("aex agent resume wild", user=OPERATOR)
        fresh = boot.aex("agent rotate-token wild")["token"]
        self.assertEqual(self.ask(token).status, 401)
        self.assertEqual(self.ask(fresh).status, 200)
        boot.run("aex group sever kernel", user=OPERATOR)
        self.assertEqual(self.ask(fresh).status, 423)
        boot.run("aex group resume kernel", user=OPERATOR)
        self.assertEqual(self.ask(fresh).status, 200)
        boot.run("aex doctor", user=OPERATOR, check=False)
        boot.run("aex config check")

    def test_no_operator_stands_in_the_way_of_an_emergency_stop(self):
        boot = self.boot
        token = self.agent("runaway")
        holds = boot.start(["python3", "-c", HOLD, "/run/aex/admin.sock"], user=OPERATOR, stdin=subprocess.PIPE)
        try:
            self.assertGreater(int(holds.stdout.readline()), 128)
            boot.run("timeout 10 aex agent sever runaway")
            self.assertEqual(self.ask(token).status, 423)
            boot.run("timeout 10 systemctl reload aex-admin")
        finally:
            holds.stdin.close()
            holds.wait()
        boot.run("aex agent resume runaway", user=OPERATOR)

    def test_prices_are_imported_and_a_policy_is_put_in_force(self):
        boot = self.boot
        token = self.agent("priced")
        entry = '{"x-model": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}}'
        boot.write("/root/prices.json", entry)
        boot.run("aex prices import /root/prices.json && systemctl reload aex-admin")
        self.assertEqual(boot.out("stat -c '%a %U %G' /etc/aex/prices.yaml"), "640 root aex-admin")
        policy = '@reason("closed")\nforbid(principal, action, resource);\n'
        boot.write("/etc/aex/policies/closed.cedar", policy, 0o640, "root:aex-admin")
        boot.run("aex policy check")
        boot.run("systemctl reload aex-admin")
        self.assertEqual(self.ask(token).status, 403)
        boot.run("rm /etc/aex/policies/closed.cedar; systemctl reload aex-admin")
        self.assertEqual(self.ask(token).status, 200)
