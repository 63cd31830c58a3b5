"""A backend for Ringcast's hooks, with FastAPI: who may be in which room, who has written what, and a login.

PORT=8001 HOOK_SECRET=… python server.py
"""

import hashlib
import hmac
import json
import os
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request

SECRET = os.environ["HOOK_SECRET"].encode()
MAX_AGE_SECONDS = 300
USERS = {"ann": {"password": "lamp", "rooms": ["room.1", "room.2"]}, "bob": {"password": "chair", "rooms": ["room.1"]}}
app = FastAPI()


def refuse(name: str, message: str) -> dict[str, Any]:
    return {"error": {"name": name, "message": message}}


def subscribe(question: dict[str, Any]) -> dict[str, Any]:
    claims = question["client"]["claims"] or {}
    if question["channel"] in claims.get("rooms", []):
        return {"allow": True}
    return refuse("NotInvitedError", f"You are not invited to {question['channel']}")


def publish(question: dict[str, Any]) -> dict[str, Any]:
    refused = subscribe(question)
    if "error" in refused:
        return refused
    text = str((question.get("data") or {}).get("text", ""))
    return {"allow": True, "data": {"from": question["client"]["claims"]["sub"], "text": text}}


def invoke(question: dict[str, Any]) -> dict[str, Any]:
    """The call `login` of a client."""
    data = question.get("data") or {}
    user = USERS.get(str(data.get("user")))
    if user is None or user["password"] != data.get("password"):
        return refuse("LoginError", "Wrong user or password")
    claims = {"sub": data["user"], "rooms": user["rooms"]}
    return {"answer": {"welcome": data["user"]}, "token": {"claims": claims, "expires_in": 3600}}


@app.post("/ringcast")
async def decide(request: Request) -> dict[str, Any] | list[dict[str, Any]]:
    body = await request.body()
    if not is_signed(request.headers.get("ringcast-signature", ""), body):
        raise HTTPException(401, "wrong signature")
    asked = json.loads(body)
    # Several publications share a request: `batch_max` of ringcast.toml.
    return [answer(question) for question in asked] if isinstance(asked, list) else answer(asked)


def answer(question: dict[str, Any]) -> dict[str, Any]:
    return {"subscribe": subscribe, "publish": publish, "invoke": invoke}[question["action"]](question)


def is_signed(header: str, body: bytes) -> bool:
    """`t=UNIX_SECONDS,v1=HEX`; more than one `v1` while one secret replaces another."""
    fields = [field.partition("=") for field in header.split(",")]
    moment = next((value for name, _, value in fields if name == "t"), "")
    if not moment.isdigit() or abs(time.time() - int(moment)) > MAX_AGE_SECONDS:
        return False
    right = hmac.new(SECRET, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return any(name == "v1" and hmac.compare_digest(value, right) for name, _, value in fields)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8001")), log_level="warning")
