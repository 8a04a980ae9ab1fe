"""What was measured: the table, the JSON and the chart."""
import datetime
import html
import json
import os
import pathlib
import platform
import re

COLOURS = {"raw": "#9e9e9e", "dstack": "#1565c0", "s3fs": "#ef6c00", "rclone": "#6a1b9a", "nothing": "#cfd8dc"}


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": cpu.group(1) if cpu else "unknown", "cpus": os.cpu_count(),
            "kernel": platform.release(), "architecture": platform.machine(),
            "memory_mib": pages >> 20, "load_at_start": os.getloadavg()[0]}


class Report:
    def __init__(self):
        self.machine = machine()
        self.time = datetime.datetime.now(datetime.timezone.utc)
        self.rows, self.work = [], []

    def clients(self, what, server, results):
        """What each client took: {client: {"seconds": …, "cpu_s": …}}."""
        self.work.append({"what": what, "server": server, "clients": results})

    def _add(self, what, server, value, goal, is_least, limit):
        met = None if goal is None else value >= goal if is_least else value <= goal
        self.rows.append({"what": what, "server": server, "value": value, "limit": limit,
                          "goal": goal, "is_least": is_least, "met": met})

    def least(self, what, server, value, goal, limit=None):
        self._add(what, server, value, goal, True, limit)

    def most(self, what, server, value, goal, limit=None):
        self._add(what, server, value, goal, False, limit)

    def failed(self):
        return [row for row in self.rows if row["met"] is False]

    @staticmethod
    def is_beyond(row):
        """Whether the raw client, or the server, misses ROW's goal as well. What we beat is no limit."""
        goal, value, limit = row["goal"], row["value"], row["limit"]
        if not limit:
            return False
        return value <= limit < goal if row["is_least"] else value >= limit > goal

    def table(self):
        lines = ["| measured | server | value | limit | value / limit | goal | met |",
                 "| --- | --- | ---: | ---: | ---: | ---: | --- |"]
        for row in self.rows:
            goal = "" if row["goal"] is None else f"{'≥' if row['is_least'] else '≤'} {row['goal']:.4g}"
            limit, share = "", ""
            if row["limit"]:
                limit, share = f"{row['limit']:.3g}", f"{row['value'] / row['limit']:.2f}"
            met = {None: "", True: "yes", False: "**no**"}[row["met"]]
            if row["met"] is False and self.is_beyond(row):
                met = "**no**: the limit is beyond the goal too"
            lines.append(f"| {row['what']} | {row['server']} | {row['value']:.3g} | {limit} | {share} "
                         f"| {goal} | {met} |")
        lines += ["", "| work | server | client | seconds | daemon CPU s |",
                  "| --- | --- | --- | ---: | ---: |"]
        for work in self.work:
            for client, result in work["clients"].items():
                cpu = f"{result['cpu_s']:.2f}" if "cpu_s" in result else ""
                seconds = "never" if result["seconds"] is None else f"{result['seconds']:.2f}"
                lines.append(f"| {work['what']} | {work['server']} | {client} | {seconds} | {cpu} |")
        return "\n".join(lines)

    def write(self, directory, size_mib):
        directory.mkdir(parents=True, exist_ok=True)
        base = directory / f"{self.time:%Y%m%d-%H%M%S}"
        base.with_suffix(".json").write_text(json.dumps(
            {"time": self.time.isoformat(timespec="seconds"), "machine": self.machine,
             "size_mib": size_mib, "rows": self.rows, "work": self.work}, indent=1) + "\n")
        base.with_suffix(".svg").write_text(self.chart())
        return base

    def chart(self):
        """A bar for each client's time. Where there is a raw client a dashed line stands at its time; it
        is as far to the right in each."""
        y, parts, left, unit, cap = 30, [], 330, 90, 6
        for work in self.work:
            clients, top = {c: r for c, r in work["clients"].items() if r["seconds"] is not None}, y
            base = clients.get("raw", min(clients.values(), key=lambda r: r["seconds"]))["seconds"]
            parts.append(f'<text x="8" y="{y + 12}" font-weight="bold">'
                         f'{html.escape(work["what"])} ({work["server"]})</text>')
            for client, result in clients.items():
                times = result["seconds"] / max(base, 1e-6)
                width = min(times, cap) * unit
                parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{client}</text>'
                             f'<rect x="{left}" y="{y + 2}" width="{width:.1f}" height="12" '
                             f'fill="{COLOURS.get(re.split("[ ,]", client)[0], "#00897b")}"/>'
                             f'<text x="{left + width + 6:.1f}" y="{y + 12}">{result["seconds"]:.2f} s'
                             f'{f" ({times:.1f} ×)" if times > cap else ""}</text>')
                y += 17
            if "raw" in clients:
                parts.append(f'<line x1="{left + unit}" x2="{left + unit}" y1="{top}" y2="{y}" '
                             f'stroke="black" stroke-dasharray="3 3"/>')
            y += 9
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + cap * unit + 140}" height="{y + 10}" '
                f'font-family="sans-serif" font-size="11">'
                f'<rect width="100%" height="100%" fill="white"/>'
                f'<text x="8" y="16" font-size="13">Time; dashed: what the raw client takes, the limit; '
                f'shorter is better</text>{"".join(parts)}</svg>\n')
