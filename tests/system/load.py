"""Load, run inside of the booted system: PORT TOKEN THREADS SECONDS. A new connection every few requests,
so that workers that come and go get some. Prints one line: how many were served, what failed, the slowest.
"""

import http.client
import json
import sys
import threading
import time

port, token, threads, seconds = sys.argv[1:]
REQUESTS_A_CONNECTION = 5
BODY = json.dumps({"model": "m", "max_tokens": 10, "stream": True,
                   "messages": [{"role": "user", "content": "hello"}]})  # fmt: skip
HEAD = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
end = time.monotonic() + float(seconds)
lock = threading.Lock()
told = {"served": 0, "failed": [], "slowest_ms": 0}


def one(connection):
    began = time.monotonic()
    connection.request("POST", "/v1/chat/completions", BODY, HEAD)
    answer = connection.getresponse()
    text = answer.read()
    spent_ms = int((time.monotonic() - began) * 1000)
    fine = answer.status == 200 and text.rstrip().endswith(b"data: [DONE]")
    with lock:
        told["slowest_ms"] = max(told["slowest_ms"], spent_ms)
        if fine:
            told["served"] += 1
        else:
            told["failed"].append(f"{answer.status} {text[-300:]!r}")
    return answer.getheader("connection", "").lower() != "close"


def run():
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        try:
            for _ in range(REQUESTS_A_CONNECTION):
                if not one(connection) or time.monotonic() > end:
                    break
        except Exception as error:
            with lock:
                told["failed"].append(repr(error))
        finally:
            connection.close()


workers = [threading.Thread(target=run) for _ in range(int(threads))]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(json.dumps(told))
