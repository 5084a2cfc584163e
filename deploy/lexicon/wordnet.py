"""Reads WordNet 3.0's files and turns senses into dictionary entries with a one-sentence answer."""
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

LEXNAMES = ("Tops act animal artifact attribute body cognition communication event feeling food "
            "group location motive object person phenomenon plant possession process quantity "
            "relation shape state substance time").split()  # noun files 03..28
ABSTRACT = set("act attribute cognition communication event feeling phenomenon possession process "
               "relation state substance food".split())

# WordNet is a complete dictionary; a model that a visitor tries is not the place for all of it.
MARKED = re.compile(r"vulgar|obscen|offensive|disparag|derogat|slur\b|slang|ethnic", re.I)
UNSAFE = re.compile(
    r"\b(sex\w*|vulgar\w*|obscen\w*|offensive\w*|disparag\w*|derogat\w*|slur|slang|ethnic|racial\w*|"
    r"penis\w*|vagina\w*|genital\w*|copulat\w*|intercourse|orgasm\w*|erotic\w*|lust\w*|prostitut\w*|"
    r"brothel|whore|bitch|bastard|slut|damn\w*|shit\w*|fuck\w*|piss\w*|crap|arse|ass|asshole|nude|"
    r"naked|breast\w*|nipple\w*|buttock\w*|anus|anal|rectum|feces|fecal|excrement|urin\w*|defecat\w*|"
    r"rape|rapist|incest\w*|homosexual\w*|lesbian\w*|gay|queer|suicid\w*|negro\w*|nigger|jew\w*|"
    r"nazi\w*|genocid\w*|massacre|torture\w*|semen|sperm|menstr\w*|abortion|pregnan\w*|castrat\w*|"
    r"hooker|stripper|porn\w*|cock|dick|tit|pussy|faggot|cretin|moron|retard\w*|idiot|whip|rump|"
    r"seduc\w*|virgin\w*|lover|mistress|heroin|cocaine|narcotic|slave\w*|concubine|pimp|condom)\b", re.I)

PLURAL_ONLY = {"stairs", "scissors", "pliers", "trousers", "bacteria", "dice", "goods", "clothes"}
DEFINITE = {"sun", "moon", "universe", "sky", "past", "future", "internet", "sea", "horizon"}
COUNTABLE = set("lighthouse king river book horse violin song pizza pie cake cookie egg sandwich salad "
                "sauce steak potato tomato carrot vegetable".split())
MASS = set("""bread water butter cheese milk cream yogurt rice pasta soup chocolate candy honey sugar salt
    pepper vinegar garlic spinach lettuce corn flour juice wine beer whiskey lemonade coffee tea jam
    bacon ham beef pork gold silver copper iron steel bronze brass lead tin aluminum zinc mercury
    uranium carbon oxygen hydrogen nitrogen helium marble granite clay sand glass cement wood coal
    petroleum gas rubber plastic leather wool cotton silk linen nylon music poetry drama software
    grass moss ivy wheat barley bamboo rain snow hail fog thunder lightning wind electricity light
    magnetism gravity blood skin hair oil ice frost dew mist love hate joy anger fear sadness happiness
    grief pride shame envy jealousy hope courage patience wisdom knowledge truth honesty loyalty
    kindness curiosity imagination mercy gratitude luck fate virtue democracy freedom justice liberty
    equality power authority sovereignty war peace trade business money wealth poverty insurance
    mathematics arithmetic algebra geometry calculus science physics chemistry biology astronomy
    geology psychology philosophy history geography economics logic statistics probability energy
    force mass temperature heat sound color chess football baseball basketball tennis golf hockey
    boxing swimming homework noon midnight midday armor soap thread paper ink chalk glue advice dice
    information advertising furniture equipment health sleep travel progress chicken turkey
    surgery bark meaning spring summer autumn winter north south east west memory""".split())


@dataclass
class Sense:
    pos: str
    lexname: str
    lemmas: list
    hypernyms: list
    usage_marked: bool
    gloss: str
    examples: list


@dataclass
class Entry:
    word: str
    pos: str            # n, v or a
    core: bool
    phrase: str         # the word as a question names it: "a lighthouse", "bread", "to run"
    meaning: str        # the cleaned gloss with its article: "a tower with a light that ..."
    answer: str
    plural: str = ""
    hypernym: str = ""  # with its article: "a tower"
    ancestors: list = field(default_factory=list)  # every hypernym lemma, nearest first
    examples: list = field(default_factory=list)


def article(word):
    if re.match(r"(uni|use|usu|eu|one\b|once|ur[aie]|ute|ubi)", word):
        return "a"
    return "an" if re.match(r"([aeio]|u|hour|honest|honor|heir)", word) else "a"


def pluralise(word):
    irregular = {"man": "men", "foot": "feet", "tooth": "teeth", "mouse": "mice", "goose": "geese",
                 "child": "children", "wolf": "wolves", "leaf": "leaves", "knife": "knives",
                 "sheep": "sheep", "deer": "deer", "wife": "wives", "shelf": "shelves"}
    for end, plural in irregular.items():
        if word == end or (end == "man" and word.endswith("man")):
            return word[:len(word) - len(end)] + plural
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


class WordNet:
    def __init__(self, folder):
        self.senses, self.index, self.count = {}, defaultdict(list), Counter()
        for pos, name in (("n", "noun"), ("v", "verb"), ("a", "adj")):
            self._read_data(os.path.join(folder, "data." + name), pos)
            with open(os.path.join(folder, "index." + name), encoding="utf-8") as f:
                for line in f:
                    if not line.startswith(" "):
                        part = line.split()
                        n = int(part[2])
                        self.index[part[0], pos] = [(pos, o) for o in part[-n:]]
        with open(os.path.join(folder, "cntlist.rev"), encoding="utf-8") as f:
            for line in f:
                key, _, n = line.split()
                lemma, sense = key.split("%")
                self.count[lemma, {"1": "n", "2": "v", "3": "a", "5": "a"}.get(sense[0], "r")] += int(n)
        self._count_articles()

    def _read_data(self, path, pos):
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.startswith(" "):
                    continue
                head, gloss = line.split(" | ", 1)
                part = head.split()
                n = int(part[3], 16)
                lemmas = [re.sub(r"\(.*\)$", "", w) for w in part[4:4 + 2 * n:2]]
                rest = part[4 + 2 * n:]
                pointers = [rest[i:i + 4] for i in range(1, 1 + 4 * int(rest[0]), 4)]
                number = int(part[1]) - 3
                self.senses[pos, part[0]] = Sense(
                    pos, LEXNAMES[number] if pos == "n" else "", lemmas,
                    [(pos, p[1]) for p in pointers if p[0] in ("@", "@i") and p[2] == pos],
                    any(p[0] == ";u" for p in pointers), gloss.strip(),
                    re.findall(r'"([^"]+)"', gloss))

    def _count_articles(self):
        """How often the glosses themselves use a noun with "a", as a plural, or bare."""
        self.with_article, self.bare, self.seen = Counter(), Counter(), Counter()
        stop = r"(?=[,;.)]|$| (?:of|in|with|for|from|by|and|or|that|which|is|to|on|at|as)\b)"
        for s in self.senses.values():
            g = s.gloss.lower()
            self.with_article.update(re.findall(r"\b(?:a|an) ([a-z]+)" + stop, g))
            self.bare.update(re.findall(r"\b(?:of|in|with|from|by|and|or|for) ([a-z]+)" + stop, g))
            self.seen.update(re.findall(r"[a-z]+", g))

    def countable(self, word, lexname, gloss):
        last = word.split()[-1]
        if word in MASS or last in MASS:
            return False
        if word in COUNTABLE:
            return True
        evidence = self.with_article[last] + self.seen[pluralise(last)] - self.bare[last]
        if abs(evidence) >= 2:
            return evidence > 0
        return lexname not in ABSTRACT or bool(re.match(r"(an?|one|any) ", gloss))

    def noun_phrase(self, word, lexname, gloss):
        if word in DEFINITE:
            return "the " + word
        if word in PLURAL_ONLY or not self.countable(word, lexname, gloss):
            return word
        return f"{article(word)} {word}"

    @staticmethod
    def clean_gloss(gloss, limit):
        """The first clause of a gloss, plain enough to stand in a sentence; None if there is none."""
        text = re.sub(r'"[^"]*"?', "", gloss)
        text = re.sub(r"\([^()]*\)", "", text)
        text = re.sub(r" ?- ?[A-Z].*", "", text.replace("`", "'").replace("--", ";"))
        clauses = [re.sub(r"\s+([,.])", r"\1", re.sub(r"\s+", " ", c)).strip(" ,.:") for c in text.split(";")]
        clauses = [c for c in clauses if c and not c.startswith("-")]
        if not clauses or re.search(r"[:()\[\]]|\be\.g|\bi\.e|\d{3}", clauses[0]):
            return None
        first = clauses[0]
        if len(first) < 22 and len(clauses) > 1 and len(clauses[1]) < 60 and ":" not in clauses[1]:
            first += "; " + clauses[1]
        return first if 6 <= len(first) <= limit else None

    def entry(self, lemma, pos, core=False, prefer=(), limit=100):
        """The entry for a lemma's preferred (else first) sense, or None if it is not fit to be taught."""
        senses = [self.senses[k] for k in self.index.get((lemma, pos), ())]
        senses = [s for s in senses if lemma in s.lemmas]  # lower case: no proper names
        if prefer:
            senses = [s for name in prefer for s in senses if s.lexname == name] or senses
        if not senses:
            return None
        s, word = senses[0], lemma.replace("_", " ")
        gloss = self.clean_gloss(s.gloss, limit)
        if not gloss or s.usage_marked or MARKED.search(s.gloss) or UNSAFE.search(word + " " + gloss):
            return None
        if pos == "v":
            phrase, meaning = "to " + word, "to " + re.sub(r"^to ", "", gloss)
            return Entry(word, pos, core, phrase, meaning, f"To {word} means {meaning}.",
                         examples=self.examples(s, word))
        if pos == "a":
            return Entry(word, pos, core, word, gloss, f"{word.capitalize()} means {gloss}.",
                         examples=self.examples(s, word))
        phrase = self.noun_phrase(word, s.lexname, gloss)
        if phrase.startswith(("a ", "an ")) and not re.match(
                r"(an?|the|one|any|anything|something|someone|somebody|either|each|all|some|two|"
                r"three|your|his|everything|what|whatever|part|food|\w+ of the)\b", gloss):
            gloss = f"{article(gloss)} {gloss}"
        verb = "are" if word in PLURAL_ONLY else "is"
        plural = pluralise(word) if phrase.startswith(("a ", "an ")) and " " not in word else ""
        e = Entry(word, pos, core, phrase, gloss, f"{phrase[0].upper()}{phrase[1:]} {verb} {gloss}.",
                  plural, examples=self.examples(s, word))
        self._climb(e, s)
        return e

    def _climb(self, e, s):
        """Follows the first hypernym upwards until the words get too general to tell anything."""
        too_general = {"entity", "physical_entity", "abstraction", "object", "whole", "artifact",
                       "physical_object", "psychological_feature", "attribute", "relation", "matter",
                       "thing", "causal_agent", "instrumentality", "living_thing", "organism", "event",
                       "measure", "group", "state", "cognition", "content", "natural_object", "unit",
                       "upper_surface", "visual_property",
                       "mathematical_statement", "panelist", "chordate", "vertebrate", "placental", "vascular_plant", "group_action"}
        while s.hypernyms and len(e.ancestors) < 7:
            s = self.senses[s.hypernyms[0]]
            lemma = s.lemmas[0]
            if lemma in too_general:
                continue
            name = lemma.replace("_", " ")
            if lemma.count("_") > 1 or lemma != lemma.lower() or UNSAFE.search(name):
                continue
            if name == e.word:
                continue
            phrase = self.noun_phrase(name, s.lexname, self.clean_gloss(s.gloss, 200) or "a")
            e.ancestors.append((name, phrase))
        if e.ancestors:
            e.hypernym = e.ancestors[0][0]

    @staticmethod
    def examples(s, word):
        out = []
        for text in s.examples:
            text = re.sub(r"\s+", " ", text).strip(" .")
            if not re.search(rf"\b{re.escape(word)}\b", text) or UNSAFE.search(text):
                continue
            if 12 <= len(text) <= 70 and re.match(r"[A-Za-z]", text) and " - " not in text:
                end = "" if text[-1] in "!?" else "."
                out.append(text[0].upper() + text[1:] + end)
        return out[:1]


def read_core(path):
    """-> [(lemma, pos, preferred lexicographer files)], first mention first"""
    out, seen = [], set()
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.startswith("#") or ":" not in line:
                continue
            head, words = line.split(":")
            pos = {"verb": "v", "adj": "a"}.get(head, "n")
            prefer = () if head in ("any", "verb", "adj") else tuple(head.split())
            for w in words.split():
                if w not in seen:
                    seen.add(w)
                    out.append((w, pos, prefer))
    return out


def read_own(path):
    """Entries written by hand, as Entry objects."""
    out = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            if "=" not in line or line.startswith("#"):
                continue
            left, meaning = (t.strip() for t in line.split("=", 1))
            kind, _, rest = left.rpartition(": ")
            if kind == "adj":
                out.append(Entry(rest, "a", True, rest, meaning, f"{rest.capitalize()} means {meaning}."))
            elif kind == "verb":
                out.append(Entry(rest, "v", True, "to " + rest, meaning, f"To {rest} means {meaning}."))
            else:
                word = re.sub(r"^(a|an|the) ", "", left)
                plural = pluralise(word) if left.startswith(("a ", "an ")) else ""
                out.append(Entry(word, "n", True, left, meaning,
                                 f"{left[0].upper()}{left[1:]} is {meaning}.", plural))
    return out


def select(wn, core_path, own_path, total):
    """-> entries, core words first and then by how often WordNet's texts use them"""
    entries, missing = read_own(own_path), []
    taken = {e.word for e in entries}
    for lemma, pos, prefer in read_core(core_path):
        e = None if lemma in taken else wn.entry(lemma, pos, True, prefer, limit=145)
        if e:
            entries.append(e)
            taken.add(lemma)
        elif lemma not in taken:
            missing.append(lemma)
    ranked = sorted(((n, lemma, pos) for (lemma, pos), n in wn.count.items() if pos in "nva"),
                    key=lambda t: (-t[0], t[1], t[2]))
    # Function words and the vaguest nouns and verbs make poor questions.
    vague = set("be have do make get go come will can may much other such first last own same more most "
                "many few one two three four five six seven eight nine ten hundred thousand million "
                "let put set else thing way".split())
    for _, lemma, pos in ranked:
        if len(entries) >= total:
            break
        if lemma in taken or lemma in vague or not re.fullmatch(r"[a-z]{3,}(_[a-z]{3,})?", lemma):
            continue
        if any(wn.count[lemma, p] > wn.count[lemma, pos] for p in "nvar"):
            continue  # the word's commoner part of speech will come, or has come
        e = wn.entry(lemma, pos, limit=90)
        if e:
            entries.append(e)
            taken.add(lemma)
    return entries, missing
