"""The main job as a person does it, on the page of any bridge: from the link with the key to task down.

Every step waits for what a person would look for and leaves a picture.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from uaihost.test.browser.browser import Browser


@attrs.frozen
class Plan:
    """What is asked for and what is to be seen.

    base: the bridge's address, without a slash at the end. key: its key. repository: of the new task.
    question, answer: a message, and a part of what an agent says to it, which must be streamed.
    edit: a message after which the agent asks for permission, which is given; edited: a part of its answer.
    preview: a part of the preview's text after that. diff: an added line that the diff shows.
    up: seconds until the task runs.
    """

    base: str
    key: str
    repository: str
    question: str
    answer: str
    edit: str
    edited: str
    preview: str
    diff: str
    name: str = "Opening hours"
    up: float = 600


async def tour(browser: Browser, plan: Plan, on_step: Callable[[str], object] = lambda step: None) -> str:
    """Play it all; the task's id. BrowserError names what was not seen, and `failed.png` shows the page."""
    try:
        await log_in(browser, plan)
        on_step("logged in")
        task_id = await create(browser, plan)
        on_step("task runs")
        await talk(browser, plan)
        on_step("answer streamed")
        await permit(browser, plan)
        on_step("edit permitted")
        await look_at_preview(browser, plan)
        on_step("preview seen")
        await look_at_diff(browser, plan)
        on_step("diff seen")
        await take_down(browser, plan)
        on_step("task down")
    except Exception:
        await browser.shot("failed")
        raise
    return task_id


async def log_in(browser: Browser, plan: Plan) -> None:
    """The link with the key; the key does not stay in the address."""
    await browser.do("open", f"{plan.base}/?key={plan.key}")
    await browser.see("#link.open")
    url = await browser.do("url")
    if plan.key in url:
        raise AssertionError(f"the key stays in the address: {url}")
    await browser.shot("01-home")


async def create(browser: Browser, plan: Plan) -> str:
    """Fill the form by keyboard and wait until the task runs."""
    await browser.do("key", "n")
    await browser.see("#repo")
    await browser.do("fill", "#repo", plan.repository)
    await browser.do("click", ".more summary")
    await browser.do("fill", "#name", plan.name)
    await browser.shot("02-new-task")
    await browser.do("press", "#name", "Enter")
    await browser.see(".steps .step")
    await browser.shot("03-getting-ready")
    await browser.see("#say", plan.up)
    await browser.see(".chip.running")
    await browser.shot("04-ready")
    url: str = await browser.do("url")
    return url.rsplit("/", 1)[-1]


async def talk(browser: Browser, plan: Plan) -> None:
    """Say something; the answer grows before the eyes."""
    await browser.do("watchLive")
    await browser.do("fill", "#say", plan.question)
    await browser.do("press", "#say", "Enter")
    await browser.see(".message.mine:not(.waiting)")
    await browser.see(".message.theirs")
    await browser.shot("05-streaming")
    await browser.see(f".message.theirs:not(.live):has-text({quoted(plan.answer)})", 60)
    grown = {text for text in await browser.do("live") if text}
    if len(grown) < 2:
        raise AssertionError(f"the answer was not streamed: {sorted(grown)}")
    await browser.shot("06-answered")


async def permit(browser: Browser, plan: Plan) -> None:
    """The agent asks before it edits, and goes on when it may."""
    await browser.do("fill", "#say", plan.edit)
    await browser.do("press", "#say", "Enter")
    await browser.see(".ask.open", 60)
    await browser.shot("07-permission")
    await browser.do("click", ".ask.open button.primary")
    await browser.see(".ask.accept")
    await browser.see(f".message.theirs:not(.live):has-text({quoted(plan.edited)})", 60)
    await browser.do("gone", ".doing .agent", 30_000)
    await browser.shot("08-edited")


async def look_at_preview(browser: Browser, plan: Plan) -> None:
    """The link of the preview opens it in a tab of its own."""
    opened = await browser.do("popup", ".links a.button >> nth=0", str(browser.shots / "09-preview.png"))
    if plan.preview not in opened["text"]:
        raise AssertionError(f"{opened['url']} does not show {plan.preview!r}: {opened['text'][:500]!r}")


async def look_at_diff(browser: Browser, plan: Plan) -> None:
    """The changes, line by line."""
    await browser.do("click", ".tabs a:has-text('Changes')")
    await browser.see(f".diff tr.added:has-text({quoted(plan.diff)})", 60)
    await browser.shot("10-diff")


async def take_down(browser: Browser, plan: Plan) -> None:
    """Asked once, then gone with its work kept."""
    await browser.do("click", ".links button.danger")
    await browser.see("dialog[open]")
    await browser.shot("11-confirm")
    await browser.do("click", "dialog button.danger")
    await browser.see(".notice.good", 120)
    await browser.see(".chip.stopped")
    await browser.shot("12-down")


def quoted(text: str) -> str:
    """`text` as a string of a selector."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
