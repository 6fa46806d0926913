"""`cmake --install` into an empty prefix: what is there works, and a C program can use it."""

import os
import re
import shutil
import subprocess
import unittest

from common import DECODER, SOURCE, ProgramTest

CLIENT = r"""
#include <bitgauge.h>
#include <bitgauge/bitgauge.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    bg_error err;
    char *text = NULL;
    if (argc != 2 || bg_inspect(argv[1], true, &text, &err) != BG_OK) return 1;
    puts(text);
    bg_string_free(text);
    printf("%s %s\n", bg_version(), bg_precision_names()[0]);
    return bg_inspect("nowhere", false, &text, &err) == BG_ERR_FILE && err.message[0] ? 0 : 2;
}
"""


class Install(ProgramTest):
    def setUp(self):
        super().setUp()
        self.prefix = self.scratch / "prefix"
        subprocess.run(["cmake", "--install", os.environ["BITGAUGE_BUILD"], "--prefix",
                        str(self.prefix)], check=True, stdout=subprocess.DEVNULL)
        self.library, = [path for path in self.prefix.rglob("libbitgauge.so")]

    def pkg_config(self, *arguments):
        environment = dict(os.environ, PKG_CONFIG_PATH=str(self.library.parent / "pkgconfig"))
        return subprocess.run(["pkg-config", *arguments, "bitgauge"], check=True, text=True,
                              stdout=subprocess.PIPE, env=environment).stdout.split()

    def test_files(self):
        for name in ("bin/bitgauge", "include/bitgauge/bitgauge.h", "share/man/man1/bitgauge.1",
                     "share/bitgauge/models/demo-decoder/config.json",
                     "share/bitgauge/models/demo-classifier/config.json",
                     "share/bitgauge/data/demo-text.txt", "share/bitgauge/data/demo-reviews.tsv",
                     "share/doc/bitgauge/README.md"):
            self.assertTrue((self.prefix / name).is_file(), name)
        self.assertTrue((self.library.parent / "pkgconfig" / "bitgauge.pc").is_file())
        self.assertEqual(os.path.realpath(self.library),
                         os.path.realpath(str(self.library) + ".0"))

    def test_exports_are_the_public_interface(self):
        symbols = subprocess.run(["nm", "-D", "--defined-only", str(self.library)], check=True,
                                 text=True, stdout=subprocess.PIPE).stdout
        exported = {line.split()[-1] for line in symbols.splitlines()
                    if line.split()[-2] in "TDRB"}
        exported = {name for name in exported if not re.match(r"_|.*(asan|ubsan|sanitizer)", name)}
        header = (SOURCE / "include/bitgauge/bitgauge.h").read_text()
        declared = set(re.findall(r"^BG_API [^(;]*?(\w+)\(", header, re.M))
        self.assertEqual(exported, declared)

    @unittest.skipUnless(shutil.which("cc"), "no C compiler called cc here")
    def test_a_client_through_pkg_config(self):
        source, client = self.scratch / "client.c", self.scratch / "client"
        source.write_text(CLIENT)
        flags = os.environ.get("BITGAUGE_CLIENT_FLAGS", "").split()
        subprocess.run(["cc", "-Wall", "-Werror", *flags, str(source), "-o", str(client),
                        *self.pkg_config("--cflags", "--libs")], check=True)
        environment = dict(os.environ, LD_LIBRARY_PATH=str(self.library.parent))
        result = subprocess.run([str(client), DECODER], cwd=SOURCE, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(result.stdout.splitlines()[-1],
                         self.pkg_config("--modversion")[0] + " fp32")

    def test_the_installed_program_finds_its_data(self):
        program = self.pkg_config("--variable=program")[0]
        away = self.scratch / "elsewhere"
        away.mkdir()
        environment = {key: value for key, value in os.environ.items() if key != "BITGAUGE_DATA"}
        options = ["compare", "--precision", "fp32", "--skip", "bench,generate", "--limit", "2",
                   "--max-tokens", "200"]
        result = subprocess.run([program, *options], cwd=away, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=200)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        # Not by way of the source tree: without the installed data it says so.
        shutil.rmtree(self.prefix / "share" / "bitgauge")
        result = subprocess.run([program, *options], cwd=away, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=200)
        self.assertEqual(result.returncode, 3)
        self.assertIn("BITGAUGE_DATA", result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
