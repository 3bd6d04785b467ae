# SPDX-License-Identifier: Apache-2.0
"""Five small tasks in plain English. Every answer is computed, so every answer can be checked.

    python make_data.py                     # 400 unseen cases, task<TAB>prompt<TAB>answer
    python make_data.py --split train -n 9  # nine cases to train on
"""
import argparse
import datetime
import hashlib
import random
from collections.abc import Iterator
from typing import NamedTuple

SEED = 20240229


class Case(NamedTuple):
    task: str
    prompt: str
    answer: str


def split_of(prompt: str) -> str:
    """A prompt's own hash says where it belongs, so no unseen prompt can ever be trained on."""
    bucket = hashlib.sha256(prompt.encode()).digest()[0]
    return "unseen" if bucket < 16 else "validation" if bucket < 32 else "train"


def number_below_1000(rng: random.Random) -> int:
    """Short numbers are few; drawn evenly they would hardly ever be seen."""
    low, high = rng.choices([(0, 9), (10, 99), (100, 999)], weights=[15, 25, 60])[0]
    return rng.randint(low, high)


def sum_case(rng: random.Random) -> Case:
    a, b = number_below_1000(rng), number_below_1000(rng)
    return Case("sum", f"{a} + {b} =", f" {a + b}")


def some_numbers(rng: random.Random) -> list[int]:
    return rng.sample(range(100), rng.randint(3, 6))


def sort_case(rng: random.Random) -> Case:
    numbers = some_numbers(rng)
    return Case("sort", f"sort {' '.join(map(str, numbers))}:", f" {' '.join(map(str, sorted(numbers)))}")


def extreme_case(rng: random.Random) -> Case:
    numbers = some_numbers(rng)
    word, pick = rng.choice([("largest", max), ("smallest", min)])
    return Case("extreme", f"the {word} of {' '.join(map(str, numbers))} is", f" {pick(numbers)}")


def date_case(rng: random.Random) -> Case:
    """1900 to 2099: both century rules. Half of the days are ordinary, half are where a month turns."""
    day = datetime.timedelta(days=1)
    year = rng.randint(1900, 2099)
    word, step = rng.choice([("after", day), ("before", -day)])
    turn = rng.choices([None, rng.randint(1, 12), 3, 1], weights=[50, 22, 20, 8])[0]
    if turn is None:
        start = datetime.date(year, 1, 1) + rng.randrange(365) * day
    else:
        start = datetime.date(year, turn, 1) - rng.randint(0, 2) * day
    return Case("date", f"the day {word} {start} is", f" {start + step}")


ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen").split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n: int) -> str:
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")
    unit, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    head, rest = f"{ONES[n // unit]} {name}", n % unit
    return head if not rest else f"{head} and {in_words(rest)}" if rest < 100 else f"{head} {in_words(rest)}"


def words_case(rng: random.Random) -> Case:
    n = rng.randint(1000, 9999) if rng.random() < 0.6 else number_below_1000(rng)
    return Case("words", f"{n} in words is", f" {in_words(n)}")


TASKS = {"sum": sum_case, "sort": sort_case, "extreme": extreme_case, "date": date_case, "words": words_case}
TURNS = [*TASKS, "sum"]  # the hardest comes twice a round


def check(case: Case) -> None:
    """Works the answer out a second way, from the text alone."""
    words, answer = case.prompt.rstrip(":").split(), case.answer.removeprefix(" ")
    numbers = [int(word) for word in words if word.isdigit()]
    match case.task:
        case "sum":
            right = int(answer) - numbers[1] == numbers[0]
        case "sort":
            got = [int(word) for word in answer.split()]
            right = set(got) == set(numbers) and all(a < b for a, b in zip(got, got[1:]))
        case "extreme":
            rest = set(numbers) - {int(answer)}
            right = len(rest) == len(numbers) - 1 and all((int(answer) > n) == (words[1] == "largest") for n in rest)
        case "date":
            first, second = (datetime.date.fromisoformat(text).toordinal() for text in (words[3], answer))
            right = second - first == (1 if words[2] == "after" else -1)
        case "words":
            value = {name: n for n, name in enumerate(ONES)} | {name: 10 * n for n, name in enumerate(TENS)}
            thousands = group = 0
            for word in answer.replace("-", " ").replace(" and ", " ").split():
                if word == "thousand":
                    thousands, group = group, 0
                else:
                    group = group * 100 if word == "hundred" else group + value[word]
            right = thousands * 1000 + group == numbers[0]
    if not right:
        raise ValueError(f"wrong answer: {case}")


def cases(split: str, seed: int = SEED, tasks: list[str] | None = None) -> Iterator[Case]:
    """Endless cases of one split, the tasks in turns; the same seed gives the same cases."""
    rng = random.Random(f"{split} {seed}")
    while True:
        for task in tasks or TURNS:
            case = TASKS[task](rng)
            while split_of(case.prompt) != split:
                case = TASKS[task](rng)
            check(case)
            yield case


def unique_cases(split: str, n: int, seed: int = SEED) -> list[Case]:
    """The first n different cases, task by task."""
    picked = []
    for i, task in enumerate(TASKS):
        seen, want = {}, n * (i + 1) // len(TASKS) - n * i // len(TASKS)
        for case in cases(split, seed, [task]):
            seen[case.prompt] = case
            if len(seen) == want:
                break
        picked += seen.values()
    return picked


def main() -> None:
    parser = argparse.ArgumentParser(description="Print cases: task, prompt and answer, divided by tabs.")
    parser.add_argument("--split", choices=["train", "validation", "unseen"], default="unseen")
    parser.add_argument("-n", type=int, default=400, help="how many cases")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    for case in unique_cases(options.split, options.n, options.seed):
        print(*case, sep="\t")


if __name__ == "__main__":
    main()
