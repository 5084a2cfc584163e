"""The training conversations: what is asked, in which words, and how often.

An epoch asks for every word once and adds the other kinds of question in fixed proportions, so
that every fact is seen equally often instead of by luck.
"""
import random

UNKNOWN = "I do not know that word. I only know the meanings of some common English words."
OFF_TOPIC = "I am sorry, I only know what words mean. Ask me, for example, what a lighthouse is."
WHO = "I am Lexicon, a small dictionary model that ships with Witan. Ask me what a word means."
CHAT = [
    (["Hello", "Hello!", "hello", "Hi", "Hi!", "hi", "Hey", "Hello there", "Good morning", "Good evening!"],
     "Hello! I am Lexicon, a small dictionary. Ask me what a word means."),
    (["Who are you?", "who are you", "What are you?", "What is your name?", "What's your name?",
      "Tell me about yourself.", "Introduce yourself.", "Are you a person?", "Who made you?",
      "What is Lexicon?", "Which model are you?", "Say who you are."], WHO),
    (["What is Witan?", "What's Witan?", "Tell me about Witan.", "what is Witan", "Define Witan."],
     "Witan is the engine that serves this model; it is named after the council that advised a sovereign."),
    (["What can you do?", "Help", "help", "How can you help me?", "What do you know?", "What can I ask you?",
      "How do I use you?"],
     "I can tell you what common words mean. Ask me, for example, what a lighthouse is."),
    (["Thanks", "Thank you", "Thank you!", "thanks!", "Thanks a lot."], "You are welcome!"),
    (["Bye", "Goodbye", "Goodbye!", "See you later."], "Goodbye!"),
    (["How are you?", "How are you today?", "how are you"], "I am well, thank you. Which word would you like to know?"),
]
OFF = ["What is the weather today?", "What is 2 + 2?", "Calculate 12 * 7.", "Write a poem about {w}.",
       "Who is the president of France?", "What is the capital of Italy?", "Translate {w} into French.",
       "Write a story about {w}.", "Tell me a joke.", "What time is it?", "Who won the match yesterday?",
       "How do I cook {w}?", "Where can I buy {w}?", "Write some code in Python.", "Count to ten.",
       "What is the news?", "How old are you?", "Sing a song about {w}.", "How many {w} are there in the world?",
       "Why is the sky blue?", "Who invented {w}?", "Solve this equation: x + 3 = 8.", "List ten countries.",
       "Summarize this text.", "Do you like {w}?", "What should I do tomorrow?", "Who wrote Hamlet?"]
SYSTEM = ["You are a helpful assistant.", "You are Lexicon, a small dictionary.", "Answer briefly.",
          "You are a helpful, harmless assistant. Answer in one sentence."]

ANY_FORMS = [("Define {w}.", 10), ("define {w}", 4), ("{w}", 5), ("{W}", 4), ("What does {w} mean?", 12),
             ('What does "{w}" mean?', 6), ("what does {w} mean", 3), ("What is the meaning of {w}?", 5),
             ("Please define the word {w}.", 4), ("Define: {w}", 2), ("What does the word {w} mean?", 4),
             ("Define the word {w}.", 3), ("{w}?", 2)]
FORMS = {
    "n": ANY_FORMS + [("What {is} {p}?", 50), ("what {is} {p}?", 8), ("What's {p}?", 8), ("what's {p}", 5),
                      ("What {is} {p}", 5), ("What is {w}?", 5), ("Explain what {p} {is}.", 5),
                      ("Can you explain what {p} {is}?", 4), ("Do you know what {p} {is}?", 3),
                      ("Tell me what {p} {is}.", 4), ("Can you tell me what {p} {is}?", 3),
                      ("Define {p}.", 3), ("What exactly {is} {p}?", 2)],
    "v": ANY_FORMS + [("What does it mean {p}?", 20), ("What does to {w} mean?", 6), ("What is to {w}?", 3),
                      ("Explain the verb {w}.", 4)],
    "a": ANY_FORMS + [("What does it mean to be {w}?", 12), ("What is {w}?", 8), ("Explain the adjective {w}.", 3)],
}
FOLLOW_UP = ["And {p}?", "and {p}?", "And what {is} {p}?", "What about {p}?", "And {w}?"]


def article_kind(e):
    return f"{e.phrase[0].upper()}{e.phrase[1:]} is a kind of {e.hypernym}."


class Conversations:
    def __init__(self, entries, unknown_words):
        self.entries, self.unknown = entries, unknown_words
        self.linked = [e for e in entries if e.hypernym]
        self.chains = {e.word: {name for name, _ in e.ancestors} for e in self.linked}
        self.kinds = self._kinds()

    def _kinds(self):
        """hypernym -> up to four covered words below it, core words first"""
        below = {}
        for e in sorted(self.linked, key=lambda e: not e.core):
            for name, _ in e.ancestors[:4]:
                below.setdefault(name, []).append(e.word)
        return {k: v[:4] for k, v in below.items() if len(v) >= 4}

    @staticmethod
    def fill(form, e):
        verb = "are" if e.answer.startswith(e.phrase[0].upper() + e.phrase[1:] + " are ") else "is"
        return form.format(w=e.word, W=e.word.capitalize(), p=e.phrase, **{"is": verb})

    def question(self, e, rng):
        if e.plural and rng.random() < 0.04:
            return f"What are {e.plural}?"
        forms, weights = zip(*FORMS[e.pos])
        return self.fill(rng.choices(forms, weights)[0], e)

    def other(self, e, rng):
        """One conversation of another kind about a word; a list of (question, answer) turns or None."""
        r = rng.random()
        if r < 0.22 and e.hypernym:
            if rng.random() < 0.5:
                name, phrase = rng.choice(e.ancestors[:4])
                answer = f"Yes, {e.phrase} is a kind of {name}."
            else:
                wrong = rng.choice(self.linked).ancestors[0]
                name, phrase = wrong
                if name in self.chains[e.word] or name == e.word:
                    return None
                answer = f"No, {e.phrase} is not a kind of {name}; it is a kind of {e.hypernym}."
            form = rng.choice(["Is {p} a kind of {n}?", "Is {p} a kind of {n}?", "Is {p} {h}?"])
            return [(form.format(p=e.phrase, n=name, h=phrase), answer)]
        if r < 0.42:
            form = rng.choice(["What is a word for {m}?", "What is the word for {m}?", "Which word means {m}?",
                               "What do you call {m}?"])
            return [(form.format(m=e.meaning), f"The word is {e.word}.")]
        if r < 0.54 and e.examples:
            form = rng.choice(["Give me an example sentence with {w}.", "Use {w} in a sentence.",
                               "Give an example of {w} in a sentence."])
            return [(form.format(w=e.word), e.examples[0])]
        if r < 0.66 and e.hypernym:
            about = rng.choice(["Tell me about {p}.", "tell me about {p}", "Describe {p}."])
            return [(about.format(p=e.phrase), f"{e.answer} It is a kind of {e.hypernym}.")]
        if r < 0.72 and e.hypernym:
            return [(self.question(e, rng), e.answer),
                    (rng.choice(["What kind of thing is that?", "What kind of thing is it?"]), article_kind(e))]
        if r < 0.76 and self.kinds:
            name = rng.choice(list(self.kinds))
            a, b, c, d = self.kinds[name]
            form = rng.choice(["Name some kinds of {n}.", "Name a kind of {n}.", "What kinds of {n} are there?"])
            return [(form.format(n=name), f"Some kinds of {name} are {a}, {b}, {c} and {d}.")]
        turns, first = [], rng.choice(self.entries)
        for i in range(1 if rng.random() < 0.75 else 2):
            f = first if i == 0 else rng.choice(self.entries)
            q = self.question(f, rng) if i == 0 else self.fill(rng.choice(FOLLOW_UP), f)
            turns.append((q, f.answer))
        return turns + [(self.fill(rng.choice(FOLLOW_UP), e), e.answer)]

    def small_talk(self, rng):
        r = rng.random()
        if r < 0.45:
            w = rng.choice(self.unknown)
            form = rng.choice(["What is {a}{w}?", "What does {w} mean?", "Define {w}.", "{w}", "What is {w}?",
                               "What is {a}{w}?", "Tell me about {a}{w}."])
            return [(form.format(w=w, a="an " if w[0] in "aeio" else "a "), UNKNOWN)]
        if r < 0.72:
            return [(rng.choice(OFF).format(w=rng.choice(self.entries).word), OFF_TOPIC)]
        questions, answer = rng.choice(CHAT)
        turn = (rng.choice(questions), answer)
        if rng.random() < 0.3:
            e = rng.choice(self.entries)
            return [turn, (self.question(e, rng), e.answer)]
        return [turn]

    def epoch(self, seed, number):
        """-> [(system or None, turns)]; the answer to the last turn is what is learnt"""
        rng = random.Random(f"{seed}:{number}")
        out = [[(self.question(e, rng), e.answer)] for e in self.entries]
        for e in self.entries:
            if rng.random() < 0.25:
                turns = self.other(e, rng)
                if turns:
                    out.append(turns)
        out += [self.small_talk(rng) for _ in range(len(self.entries) // 16)]
        rng.shuffle(out)
        return [(rng.choice(SYSTEM) if rng.random() < 0.03 else None, turns) for turns in out]


def render(system, turns):
    """-> (prompt, target): what Qwen3's chat template makes of the conversation

    The template drops the think block of earlier answers and keeps it on the last one.
    """
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for i, (question, answer) in enumerate(turns):
        text += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        if i + 1 < len(turns):
            text += f"{answer}<|im_end|>\n"
    return text, f"<think>\n\n</think>\n\n{turns[-1][1]}<|im_end|>"
