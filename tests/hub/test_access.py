"""Tokens, gated and private models, certificates, proxies."""

import http.server
import shutil
import socketserver
import ssl
import subprocess
import threading
import unittest
import urllib.request

from common import FILE, OK, SMALL, USAGE, HubTest, model
from server import Hub, Server

WANTED = [*SMALL, "model.safetensors"]


def tokens(log):
    return {request.headers.get("Authorization") for request in log}


class Tokens(HubTest):
    def setUp(self):
        super().setUp()
        self.repo = self.hub.models["org/name"] = model(private=True)

    def test_goes_to_the_endpoint_alone(self):
        self.drive("pull", "org/name", HF_TOKEN="hf_good")
        self.assertEqual(tokens(self.hub.log), {"Bearer hf_good"})
        self.assertGreater(len(self.hub.storage.log), 0)
        self.assertEqual(tokens(self.hub.storage.log), {None})

    def test_same_host_at_another_port(self):
        self.hub.elsewhere = self.hub.storage.url.replace("localhost", "127.0.0.1")
        self.drive("pull", "org/name", HF_TOKEN="hf_good")
        self.assertEqual(tokens(self.hub.storage.log), {None})

    def test_same_port_at_another_name(self):
        path = "/api/models/org/name/revision/main"
        self.hub.redirects[path] = self.hub.url.replace("127.0.0.1", "localhost") + path + "?x"
        self.hub.server.route = lambda handler, asked: (
            self.hub.route(handler, asked) if "?x" not in handler.path else handler.answer(404))
        self.drive("pull", "org/name", code=FILE, HF_TOKEN="hf_good")
        sent = {request.path: request.headers.get("Authorization") for request in self.hub.log}
        self.assertEqual(sent, {path + "?blobs=true": "Bearer hf_good", path + "?x": None})

    def test_sources(self):
        home = self.scratch / "home"
        home.mkdir()
        (home / "token").write_text("hf_good\n")
        self.drive("config", "org/name")
        self.drive("config", "org/name", code=FILE, HF_HUB_DISABLE_IMPLICIT_TOKEN="1")
        (home / "token").write_text("hf_wrong\n")
        self.assertIn("does not accept the token", self.drive("config", "org/name", code=FILE))
        self.drive("config", "org/name", HF_TOKEN=" hf_good\n")
        (self.scratch / "other").write_text("  hf_good  ")
        self.drive("config", "org/name", HF_TOKEN_PATH=str(self.scratch / "other"))

    def test_odd_tokens(self):
        for token in ("hf_a\r\nX-Header: b", "two words", "h\u00e9"):
            self.hub.clear()
            error = self.drive("config", "org/name", code=USAGE, HF_TOKEN=token)
            self.assertNotIn("X-Header", error)
            self.assertEqual(self.hub.log, [])

    def test_never_in_an_error(self):
        for repo in ("org/name", "org/other"):
            error = self.drive("pull", repo, code=FILE, HF_TOKEN="hf_stranger")
            self.assertNotIn("hf_stranger", error)


class Access(HubTest):
    def test_gated(self):
        self.hub.models["org/name"] = model(gated=True)
        page = f"{self.hub.url}/org/name"
        error = self.drive("pull", "org/name", code=FILE)
        self.assertIn(f"open {page}, accept its conditions, then set HF_TOKEN", error)
        error = self.drive("pull", "org/name", code=FILE, HF_TOKEN="hf_stranger")
        self.assertIn(f"has no access to it (yet): open {page}", error)
        self.drive("pull", "org/name", HF_TOKEN="hf_good")

    def test_not_there(self):
        self.hub.models["org/name"] = model(private=True)
        for name in ("org/name", "org/other"):
            error = self.drive("resolve", name, code=FILE)
            self.assertIn(f"there is no file or directory {name}", error)
            self.assertIn("or it is private", error)
            self.assertIn("HF_TOKEN", error)
        error = self.drive("resolve", "org/name", code=FILE, HF_TOKEN="hf_stranger")
        self.assertIn("not valid for it", error)
        error = self.drive("resolve", "org/name@v9", code=FILE, HF_TOKEN="hf_good")
        self.assertIn('no revision "v9"', error)

    def test_refused(self):
        self.hub.models["org/name"] = model()
        self.hub.server.fail(403, 1, "/api/", X_Error_Message="Not from\x1b[2J here")
        error = self.drive("pull", "org/name", code=FILE)
        self.assertIn("refuses access", error)
        self.assertNotIn("\x1b", error)


class Proxy(HubTest):
    def test_proxy(self):
        seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(self.path)
                headers = {name: value for name, value in self.headers.items()
                           if name.lower() in ("authorization", "range", "if-range")}
                request = urllib.request.Request(self.path, headers=headers, method=self.command)
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
                try:
                    answer = opener.open(request)
                except urllib.error.HTTPError as error:
                    answer = error
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("connection", "server", "date"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.read())

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *arguments):
                return None

        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        self.addCleanup(proxy.server_close)
        self.addCleanup(proxy.shutdown)
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        repo = self.hub.models["org/name"] = model()
        directory = self.drive("pull", "org/name", http_proxy=address)
        self.check_snapshot(directory, repo, WANTED)
        self.assertTrue(any(path.startswith(self.hub.url) for path in seen))
        self.assertTrue(any(path.startswith(self.hub.storage.url) for path in seen))
        seen.clear()
        self.drive("pull", "org/name", http_proxy=address, no_proxy="127.0.0.1,localhost")
        self.assertEqual(seen, [])


@unittest.skipUnless(shutil.which("openssl"), "there is no openssl to make a certificate with")
class Certificates(HubTest):
    def setUp(self):
        super().setUp()
        self.pem = self.scratch / "pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost", "-keyout", self.pem, "-out", self.scratch / "crt"],
            check=True, capture_output=True)
        self.crt = str(self.scratch / "crt")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.crt, self.pem)
        self.context = context
        self.hub = Hub(context)
        self.addCleanup(self.hub.stop)
        self.repo = self.hub.models["org/name"] = model()

    def test_certificates(self):
        error = self.drive("config", "org/name", code=FILE)
        self.assertIn("certificate", error)
        self.assertEqual(self.hub.log, [])
        for variable in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            self.hub.clear()
            self.drive("config", "org/name", **{variable: self.crt})
            self.assertGreater(len(self.hub.log), 0, variable)

    def test_never_without_encryption(self):
        """The storage is http: an https endpoint's redirect to it is refused."""
        error = self.drive("pull", "org/name", code=FILE, SSL_CERT_FILE=self.crt)
        self.assertIn("not encrypted", error)
        self.assertEqual(self.hub.storage.log, [])

    def test_encrypted_storage(self):
        storage = Server("localhost", self.hub.route_storage, self.context)
        self.addCleanup(storage.stop)
        self.hub.elsewhere = storage.url
        directory = self.drive("pull", "org/name", SSL_CERT_FILE=self.crt, HF_TOKEN="hf_good")
        self.check_snapshot(directory, self.repo, WANTED)
        self.assertEqual(tokens(storage.log), {None})


if __name__ == "__main__":
    unittest.main()
