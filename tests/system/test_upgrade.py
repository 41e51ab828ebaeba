"""The package's life: upgraded under load, removed, installed again, purged. The ledger outlives all of
it, unless a purge is told otherwise."""

import json

from boot import until
from case import OPERATOR, PORT, STRANGER, Host, Installed, SystemCase, installed_version, path_of

NEWER = f"{installed_version()}+upgrade"


class Upgraded(Installed):
    workers = 2

    def test_an_upgrade_rolls_the_services_and_keeps_the_ledger(self):
        token = self.agent("kept", "100.00", 1_000_000)
        self.assertEqual(self.ask(token).status, 200)
        self.boot.run("systemctl disable aex-proxy@2.service")
        before = {unit: self.boot.main_pid(unit) for unit in SERVICES}
        events = len(self.boot.out("aex ledger export", user=OPERATOR).splitlines())
        load = self.boot.start(["python3", "-", str(PORT), token, "4", "8"], stdin=LOAD.open())
        said = self.boot.install(NEWER)
        figures = json.loads(load.communicate(timeout=60)[0].splitlines()[-1])
        self.assertNotIn("not every service", said)
        self.assertEqual(self.boot.out("dpkg-query -W -f '${Version}' aex"), NEWER)
        for unit, pid in before.items():
            self.assertNotIn(self.boot.main_pid(unit), (0, pid), f"{unit} runs the new program")
        # What was asked while the ledger restarted was answered all the same.
        self.assertEqual(figures["failed"], [])
        self.assertGreater(figures["served"], 50)
        now = len(self.boot.out("aex ledger export", user=OPERATOR).splitlines())
        self.assertGreater(now, events)
        self.assertGreater(self.boot.aex("agent show kept")["spent_micro"], 0)
        self.assert_serves(token)
        self.assert_sound()
        # What the operator disabled is not enabled again.
        self.assertEqual(
            self.boot.run("systemctl is-enabled aex-proxy@2.service", check=False).stdout.strip(), "disabled"
        )


class UpgradedWithBadSettings(Installed):
    def test_a_program_that_does_not_come_up_keeps_no_other_old(self):
        boot = self.boot
        token = self.agent("patient")
        others = ("aex-egress.service", "aex-proxy@1.service")
        before = {unit: boot.main_pid(unit) for unit in others}
        good = boot.out("cat /etc/aex/models.yaml")
        boot.write("/etc/aex/models.yaml", "models: [", 0o640, "root:aex-admin")
        self.assertIn("not every service came up", boot.install(NEWER))
        for unit, pid in before.items():
            self.assertNotIn(boot.main_pid(unit), (0, pid), f"{unit} runs the new program")
        boot.write("/etc/aex/models.yaml", good, 0o640, "root:aex-admin")
        boot.run("systemctl start aex.target")
        self.assert_serves(token)


class StoppedUpgrade(Installed):
    def test_what_is_stopped_stays_stopped(self):
        self.boot.run("systemctl stop aex.target 'aex-*'")
        self.boot.install(NEWER)
        self.assertFalse(self.boot.is_active("aex.target"))
        self.assertEqual(self.boot.out("pgrep -u aex,aex-egress,aex-proxy || true"), "")


class Removed(Installed):
    def test_a_removal_keeps_what_a_purge_asks_for(self):
        token = self.agent("survivor")
        self.assertEqual(self.ask(token).status, 200)
        spent = self.boot.aex("agent show survivor")["spent_micro"]
        boot = self.boot
        self.assertIn("Default: false", boot.out("cat /var/lib/dpkg/info/aex.templates"))

        boot.run("dpkg -r aex")
        self.assertEqual(boot.out("pgrep -u aex,aex-egress,aex-proxy || true"), "")
        self.assertEqual(boot.out("systemctl list-units --no-legend 'aex*' --state=active"), "")
        self.assertEqual(boot.out("systemctl --failed --no-legend"), "")
        self.assertEqual(boot.out("find /run /usr /lib -xdev -name 'aex*' 2> /dev/null"), "")
        self.assertTrue(boot.inside("/var/lib/aex/aex.db").exists())
        self.assertTrue(boot.inside("/etc/aex/keys/sim").exists())

        boot.install()
        until(lambda: boot.get("/readyz").status == 200, 15, boot.state)
        self.assertEqual(boot.aex("agent show survivor")["spent_micro"], spent)
        self.assert_serves(token)
        spent = boot.aex("agent show survivor")["spent_micro"]
        self.assert_sound()

        # Nobody is there to be asked: what proves the spending stays.
        said = boot.run("dpkg -P aex")
        self.assertIn("are kept", said.stdout + said.stderr)
        self.assertTrue(boot.inside("/var/lib/aex/aex.db").exists())
        self.assertTrue(boot.inside("/etc/aex/keys/sim").exists())
        self.assertEqual(boot.out("find /etc/systemd -name 'aex*'"), "")

        boot.install()
        until(lambda: boot.get("/readyz").status == 200, 15, boot.state)
        self.assertEqual(boot.aex("agent show survivor")["spent_micro"], spent)

        boot.run("debconf-set-selections", stdin="aex aex/purge_ledger boolean true\n")
        boot.run("dpkg -P aex")
        left = boot.out("find / -xdev -name '*aex*' ! -path '/proc/*' ! -path '/var/lib/dpkg/*' "
                        "! -path '/opt/sim*' ! -path '/var/cache/debconf/*' 2> /dev/null || true")  # fmt: skip
        self.assertEqual(left, "")
        self.assertEqual(boot.out("debconf-show aex"), "")


class Namesakes(SystemCase):
    def test_who_has_a_name_of_aexs_already_is_told_of_at_the_first_installation(self):
        self.boot = Host()
        self.addCleanup(self.boot.stop)
        self.boot.run(
            "useradd -m -s /bin/bash aex; useradd --system -s /bin/bash aex-proxy; groupadd aex-admin;"
            f" usermod -aG aex-admin {STRANGER}"
        )
        said = self.boot.install()
        for words in ("a user aex already", "a user aex-proxy already", f"operate or audit AEX now: {STRANGER}"):
            self.assertIn(words, said)
        self.assertNotIn("aex-egress already", said)
        # Later they are the operator's own affair.
        self.assertNotIn("warning", self.boot.install(NEWER))


class PurgedElsewhere(SystemCase):
    def test_a_purge_deletes_a_ledger_that_is_linked_or_mounted(self):
        self.boot = boot = Host()
        self.addCleanup(boot.stop)
        asked = "aex aex/purge_ledger boolean true\n"
        boot.install()
        boot.run("systemctl stop aex.target 'aex-*'; mkdir /srv/big; mv /var/lib/aex /srv/big/aex;"
                 " ln -s /srv/big/aex /var/lib/aex; test -f /srv/big/aex/aex.db")  # fmt: skip
        boot.run("debconf-set-selections", stdin=asked)
        boot.run("dpkg -P aex")
        self.assertEqual(boot.out("ls -A /srv/big/aex; ls -d /var/lib/aex /etc/aex 2> /dev/null || true"), "")

        boot.install()
        boot.run("systemctl stop aex.target 'aex-*'; rm -rf /var/lib/aex/*; mount -t tmpfs tmpfs /var/lib/aex;"
                 " touch /var/lib/aex/aex.db; mkdir /var/lib/aex/deep; touch /var/lib/aex/deep/file")  # fmt: skip
        boot.run("debconf-set-selections", stdin=asked)
        boot.run("dpkg -P aex")
        self.assertEqual(boot.out("ls -A /var/lib/aex; ls -d /etc/aex 2> /dev/null || true"), "")


LOAD = path_of("load.py")
SERVICES = ("aex-admin.service", "aex-egress.service", "aex-proxy@1.service", "aex-proxy@2.service")
