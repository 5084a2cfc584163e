"""Questions to the model that ships, and what comes back as a stream."""


def question(entry: dict) -> str:
    return f"What is {entry['phrase']}?"


def messages(entry: dict) -> list[dict]:
    return [{"role": "user", "content": question(entry)}]


def chat_text(chunks) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def completion_text(chunks) -> str:
    return "".join(c.choices[0].text for c in chunks if c.choices)
