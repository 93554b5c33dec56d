"""Is text that a page shows legible: does it stand out from what is behind it?"""

from playwright.sync_api import Locator

# The lowest contrast that WCAG 2 allows for text (level AA).
LOWEST = 4.5

# Contrast as WCAG 2 defines it, of the text in a notebook's outputs and Markdown. Code and buttons
# are left out: their colours are JupyterLab's own. What is behind a text is the first background,
# going outwards, that is not see-through.
FAINT = """(root, lowest) => {
    const rgb = color => color.match(/[\\d.]+/g).map(Number);
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const luminance = color => {
        const [red, green, blue] = rgb(color).slice(0, 3).map(value => linear(value / 255));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = element => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if ((rgb(color)[3] ?? 1) > 0.5) return color;
        }
        return 'rgb(255, 255, 255)';
    };
    const found = [], texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        const text = texts.currentNode.textContent.trim().slice(0, 40);
        const ours = element.closest('.jp-OutputArea-output, .jp-RenderedMarkdown');
        const skip = !ours || element.closest('code, button') || !element.checkVisibility();
        if (skip || !text) continue;
        const color = getComputedStyle(element).color, ground = behind(element);
        const [dark, bright] = [luminance(color), luminance(ground)].sort((a, b) => a - b);
        const contrast = (bright + 0.05) / (dark + 0.05);
        if (contrast < lowest) {
            found.push(`${text}: ${color} on ${ground}, ${contrast.toFixed(1)}`);
        }
    }
    return [...new Set(found)];
}"""

# Outputs and texts that are wider than their place: the rest can be seen by scrolling only.
CUT_OFF = """root => [...root.querySelectorAll('.jp-OutputArea-output, .jp-RenderedMarkdown')]
    .filter(element => element.scrollWidth > element.clientWidth + 1)
    .map(element => `${element.innerText.slice(0, 60)}: ${element.scrollWidth} pixels wide`)"""


def faint(part: Locator) -> list[str]:
    """Texts within a part of a page whose contrast is below LOWEST, each with its colours."""
    return part.evaluate(FAINT, LOWEST)


def cut_off(part: Locator) -> list[str]:
    """Outputs and texts within a notebook that are wider than their place."""
    return part.evaluate(CUT_OFF)
