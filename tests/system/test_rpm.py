"""The .rpm: the same tree as the .deb's, with scripts of its own. Installed here on a Debian, whose
database of packages knows nothing of what it requires (`--nodeps`); the rest is as it would be elsewhere.
"""

import subprocess

from boot import until
from case import Host, SystemCase, deb, installed_version, rpm


class Rpm(SystemCase):
    @classmethod
    def setUpClass(cls):
        cls.boot = Host()
        cls.addClassCleanup(cls.boot.stop)

    def test_it_installs_serves_upgrades_and_keeps_the_ledger(self):
        boot = self.boot
        boot.put(rpm(), "/root/aex.rpm", 0o644)
        boot.run("rpm -i --nodeps /root/aex.rpm")
        boot.configure()
        token = boot.aex("agent create kept 1.00 60")["token"]
        self.assertEqual(boot.ask(token).status, 200)

        pid = boot.main_pid("aex-admin.service")
        boot.run("rpm -U --nodeps --force /root/aex.rpm")
        self.assertNotIn(boot.main_pid("aex-admin.service"), (0, pid))
        until(lambda: boot.ask(token).status == 200, 10, boot.state)

        boot.run("rpm -e aex")
        self.assertEqual(boot.out("pgrep -u aex,aex-egress,aex-proxy || true"), "")
        self.assertEqual(boot.out("find /run /usr /lib /etc/systemd -xdev -name 'aex*' 2> /dev/null || true"), "")
        for kept in ("/var/lib/aex/aex.db", "/etc/aex/models.yaml", "/etc/aex/keys/sim"):
            self.assertTrue(boot.inside(kept).exists(), kept)

    def test_both_packages_bring_the_same_files(self):
        def files(*words):
            lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
            return {line.removesuffix(".gz") for line in lines if not line.endswith("/")}

        listed = subprocess.run(
            ["dpkg-deb", "-c", deb(installed_version())], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        of_deb = {line.split()[5].removeprefix(".").removesuffix(".gz") for line in listed if line[0] != "d"}
        of_rpm = files("rpm", "-qpl", str(rpm()))
        self.assertEqual(of_deb - of_rpm, {"/usr/share/doc/aex/copyright"})
        self.assertEqual({path for path in of_rpm - of_deb if "." in path.split("/")[-1]}, set())
