#!/usr/bin/python3
"""Draws the loss of a run from its log, on stdin, while it comes: on the terminal, and as an SVG at the
end. Each attempt has a mark and a colour of its own; steps that were done again are counted.

    dstack logs -a RUN | curve.py [--svg FILE] [--text FILE] [--at STEP,… --do COMMAND]

COMMAND is run when the n-th attempt reaches the n-th STEP: what interrupts it.
"""
import argparse
import re
import shutil
import subprocess
import sys
import time

MARKS = "●▲■◆"
COLOURS = (32, 33, 36, 35)
FILLS = ("#2a9d3a", "#d08700", "#1787b5", "#a0328c")
WIDTH, HEIGHT = 72, 14
DRAW_S = 0.25

STEP = re.compile(r"^step (\d+) loss ([-+.0-9e]+)$")
FROM = re.compile(r"^from step (\d+) of (\d+)$")
NOTE = re.compile(r"^dstack: (.*)$")


class Story:
    """What a log says: the points of each attempt, and what dstack said between them."""

    def __init__(self):
        self.steps = 1
        self.attempts = []  # [(step, loss)…] of each
        self.notes = []     # (of which attempt, text)
        self.last = ""

    def add(self, line):
        if match := FROM.match(line):
            self.steps = int(match[2])
            self.attempts.append([])
        elif (match := STEP.match(line)) and self.attempts:
            self.attempts[-1].append((int(match[1]), float(match[2])))
        elif match := NOTE.match(line):
            self.notes.append((max(len(self.attempts) - 1, 0), match[1]))
        elif line.startswith("final "):
            self.last = line

    def repeated(self, attempt):
        """The steps of ATTEMPT that one before it had done."""
        before = {step for points in self.attempts[:attempt] for step, _ in points}
        return sorted(before & {step for step, _ in self.attempts[attempt]})

    def top(self):
        return max((loss for points in self.attempts for _, loss in points), default=1.0) or 1.0


def paint(text, attempt, colour):
    return f"\033[{COLOURS[attempt % len(COLOURS)]}m{text}\033[0m" if colour else text


def frame(story, colour, width=WIDTH):
    """The curve as lines of text, WIDTH and its scale wide."""
    cells = [[" "] * width for _ in range(HEIGHT)]
    for attempt, points in enumerate(story.attempts):
        for step, loss in points:
            row = HEIGHT - 1 - min(int(loss / story.top() * HEIGHT), HEIGHT - 1)
            cells[row][min(step * width // story.steps, width - 1)] = paint(
                MARKS[attempt % len(MARKS)], attempt, colour)
    lines = [f"{story.top() * (HEIGHT - row) / HEIGHT:7.2f} │" + "".join(line)
             for row, line in enumerate(cells)]
    lines.append(" " * 8 + "└" + "─" * width)
    lines.append(" " * 9 + f"step 0{story.steps:>{width - 6}}")
    return lines


def summary(story, colour):
    lines = []
    for attempt, points in enumerate(story.attempts):
        mark = paint(MARKS[attempt % len(MARKS)], attempt, colour)
        if not points:
            lines.append(f"{mark} attempt {attempt + 1}: begins")
            continue
        again = story.repeated(attempt)
        lines.append(f"{mark} attempt {attempt + 1}: steps {points[0][0]} to {points[-1][0]}" + (
            f", {len(again)} of them again ({again[0]} to {again[-1]})" if again else
            ", none of them again" if attempt else ""))
        lines += [f"    {text}" for of, text in story.notes if of == attempt and not text.startswith("---")]
    return lines


def svg(story):
    width, height, left, top, bottom = 800, 400, 60, 40, 40

    def at(step, loss):
        return (left + (width - left - 20) * step / story.steps,
                top + (height - top - bottom) * (1 - loss / story.top()))

    def text(x, y, words, more=""):
        return f'<text x="{x:.0f}" y="{y:.0f}" font-family="sans-serif" font-size="13" {more}>{words}</text>'

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
             f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<path d="M{left} {top}V{height - bottom}H{width - 20}" fill="none" stroke="black"/>',
             text(left - 8, top + 5, f"{story.top():.2f}", 'text-anchor="end"'),
             text(left - 8, height - bottom, "0", 'text-anchor="end"'),
             text(width - 20, height - bottom + 18, f"step {story.steps}", 'text-anchor="end"'),
             text(left, top - 18, "loss")]
    for attempt, points in enumerate(story.attempts):
        fill = FILLS[attempt % len(FILLS)]
        again = set(story.repeated(attempt))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{fill}"/>')
        parts += [f'<circle cx="{at(*point)[0]:.1f}" cy="{at(*point)[1]:.1f}" r="{4 if point[0] in again else 2}" '
                  f'fill="{"none" if point[0] in again else fill}" stroke="{fill}"/>' for point in points]
        parts.append(text(left + 120 + 200 * attempt, top - 18,
                          f"attempt {attempt + 1}: {len(again)} steps again", f'fill="{fill}"'))
    return "\n".join(parts + ["</svg>\n"])


class Screen:
    """Draws over what it drew before; what is no terminal gets the last picture alone."""

    def __init__(self, out):
        self.out, self.is_terminal = out, out.isatty()
        self.drawn, self.when = 0, 0.0

    def show(self, story, is_last=False):
        if not is_last and (not self.is_terminal or time.monotonic() - self.when < DRAW_S):
            return
        lines = self.fit(story) if self.is_terminal else frame(story, False) + summary(story, False)
        if self.drawn:
            self.out.write(f"\033[{self.drawn}A\033[J")
        self.out.write("\n".join(lines) + "\n")
        self.out.flush()
        self.drawn, self.when = len(lines) if self.is_terminal else 0, time.monotonic()

    @staticmethod
    def fit(story):
        """What is drawn over again must not wrap, nor scroll."""
        columns, rows = shutil.get_terminal_size()
        paint_bytes = len(paint("", 0, True))
        lines = [line if line.startswith("\033") and len(line) <= columns + paint_bytes else line[:columns]
                 for line in summary(story, True)]
        return (frame(story, True, min(WIDTH, columns - 10)) + lines)[-(rows - 1):]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--svg")
    parser.add_argument("--text")
    parser.add_argument("--at", default="")
    parser.add_argument("--do", default="true")
    options = parser.parse_args()
    places = [int(step) for step in options.at.split(",") if step]
    story, screen = Story(), Screen(sys.stdout)
    for line in sys.stdin:
        story.add(line.rstrip("\n"))
        now = len(story.attempts) - 1
        if places and 0 <= now == len(options.at.split(",")) - len(places) and \
                story.attempts[now] and story.attempts[now][-1][0] >= places[0]:
            places.pop(0)
            subprocess.run(options.do, shell=True, check=True, stdout=subprocess.DEVNULL)
        screen.show(story)
    screen.show(story, is_last=True)
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(svg(story))
    if options.text:
        with open(options.text, "w", encoding="utf-8") as file:
            file.write("\n".join(summary(story, False) + [story.last, ""]))
    print(story.last)


if __name__ == "__main__":
    main()
