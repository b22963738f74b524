#!/usr/bin/env python3
"""A model for trying a crew out without a network and without a bill: as much of OpenAI's API as CrewAI uses.

It answers with the first line of what it is asked. If OPENAI_API_KEY is set, that is the key it wants.
"""

import argparse
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = os.environ.get("OPENAI_API_KEY")
        if self.path != "/v1/chat/completions":
            self.answer(404, refusal("there is nothing here"))
        elif key and self.headers["Authorization"] != f"Bearer {key}":
            self.answer(401, refusal("the key is wrong"))
        elif options.busy:
            self.answer(429, refusal("too many requests"))
        else:
            time.sleep(options.seconds)
            text = asked["messages"][-1]["content"].strip().splitlines()[0]
            self.log_message("%s", text)
            self.answer(200, completion(asked["model"], text))

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def refusal(message):
    return {"error": {"message": message}}


def completion(model, text):
    return {
        "id": "stub",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=1, help="how long it takes for an answer")
    parser.add_argument("--busy", action="store_true", help="have a limit, and be at it: answer 429")
    options = parser.parse_args()
    ThreadingHTTPServer(("127.0.0.1", options.port), Model).serve_forever()
