"""The built documentation in a real browser: make test-docs.

Chromium is clicked through the front page, the search, the copy button and the switch of the theme, and looks at every
page at two widths. The name of this file keeps it out of the other tests, whose environments have no browser.
"""

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

webdriver = pytest.importorskip('selenium.webdriver')
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

DOCS = Path(__file__).resolve().parents[1] / 'build' / 'docs'
PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob('*.html')
    if path.name not in {'search.html', 'genindex.html', 'py-modindex.html'} and not path.parent.name.startswith('_')
)
PATIENCE = 20.0
WIDE, NARROW = 1440, 390

# What somebody looks for, and the pages of which one has to be among the first results.
SEARCHES = {
    'exhausted': {'troubleshooting'},
    'metrics': {'exporting'},
    'prometheus': {'exporting'},
    'fastapi': {'frameworks'},
    'health check': {'checking'},
    'warm up': {'sizing'},
    'pre-ping': {'checking'},
    'leak': {'monitoring', 'troubleshooting'},
    'deadlock': {'troubleshooting'},
    'max_size': {'parameters'},
}
FIRST_RESULTS = 3

# Code whose content is wider than its box.
CUT_CODE = """
return [...document.querySelectorAll('div.highlight pre')]
    .filter(pre => pre.scrollWidth > pre.clientWidth + 1).map(pre => pre.textContent.slice(0, 80))
"""
# Tables that have to be scrolled.
WIDE_TABLES = """
return [...document.querySelectorAll('.table-wrapper')]
    .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.textContent.slice(0, 80))
"""
# Each picture that is shown, and which part of it is bright.
LOOK_OF_PICTURES = """
const done = arguments[0];
const shown = [...document.querySelectorAll('figure img')].filter(image => image.offsetParent !== null);
Promise.all(shown.map(async image => {
    await image.decode();
    const canvas = document.createElement('canvas');
    const width = canvas.width = 1200;
    const height = canvas.height = Math.round(width * image.naturalHeight / image.naturalWidth);
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height).data;
    const is = (test, start) => pixels[start + 3] > 128 && test(Math.min(...pixels.slice(start, start + 3)));
    const starts = [...Array(width * height).keys()].map(number => 4 * number);
    const bright = starts.filter(start => is(value => value > 180, start)).length;
    return [image.getAttribute('src'), bright / starts.length];
})).then(done);
"""
# The part of a picture that may be bright on a dark page: text and lines.
MOST_INK = 0.2
IS_WIDER_THAN_SCREEN = 'return document.documentElement.scrollWidth > window.innerWidth'


class Handler(SimpleHTTPRequestHandler):
    """Serves the pages, and says nothing of it."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in the base class)
        pass


@pytest.fixture(scope='module')
def address() -> Iterator[str]:
    """Where the pages are served."""
    assert PAGES, 'build the pages first: make docs'
    with ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=str(DOCS))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05})
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join(PATIENCE)


@pytest.fixture(scope='module')
def browser() -> Iterator[WebDriver]:
    names = ('chromium', 'chromium-browser', 'google-chrome')
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which('chromedriver')
    if program is None or driver is None:
        pytest.skip('Chromium and its driver are not installed')
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars'):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_page_load_timeout(PATIENCE)
    yield browser
    browser.quit()


@pytest.fixture(autouse=True)
def wide_screen(browser: WebDriver) -> None:
    set_width(browser, WIDE)


def set_width(browser: WebDriver, width: int) -> None:
    browser.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride', {'width': width, 'height': 1000, 'deviceScaleFactor': 1, 'mobile': False}
    )


def shown(browser: WebDriver, css: str) -> list[WebElement]:
    return [element for element in browser.find_elements(By.CSS_SELECTOR, css) if element.is_displayed()]


def test_front_page(browser: WebDriver, address: str) -> None:
    browser.get(f'{address}/index.html')
    assert 'pip install gcpool' in browser.find_element(By.CSS_SELECTOR, '.highlight-sh').text
    assert 'ConnectionPool(' in browser.find_element(By.CSS_SELECTOR, '.highlight-python').text
    assert len(shown(browser, 'figure img')) == 1
    assert shown(browser, 'table')
    assert shown(browser, '.sidebar-logo')
    assert browser.find_element(By.CSS_SELECTOR, 'link[rel~="icon"]').get_attribute('href')
    for page in ('quickstart', 'troubleshooting', 'psycopg_pool'):
        browser.get(f'{address}/index.html')
        link = browser.find_element(By.CSS_SELECTOR, f'article a[href="{page}.html"]')
        browser.execute_script('arguments[0].scrollIntoView({block: "center", behavior: "instant"})', link)
        link.click()
        assert browser.current_url.endswith(f'/{page}.html')
    assert '/docs/psycopg_pool.md' in str(
        browser.find_element(By.CSS_SELECTOR, '.edit-this-page a').get_attribute('href')
    )


def test_pictures_can_be_seen(browser: WebDriver, address: str) -> None:
    for page in ('index', 'parameters', 'checking', 'reconnecting', 'draining', 'performance', 'managers'):
        browser.get(f'{address}/{page}.html')
        sizes = [image.get_property('naturalWidth') for image in shown(browser, 'figure img')]
        assert sizes, page
        assert all(sizes), page


@pytest.mark.parametrize('words', SEARCHES)
def test_search(browser: WebDriver, address: str, words: str) -> None:
    browser.get(f'{address}/index.html')
    box = browser.find_element(By.CSS_SELECTOR, '.sidebar-search')
    box.send_keys(words)
    box.submit()
    WebDriverWait(browser, PATIENCE).until(
        lambda browser: 'finished' in browser.find_element(By.CSS_SELECTOR, '#search-results').text
    )
    links = browser.find_elements(By.CSS_SELECTOR, 'ul.search li > a')
    found = [str(link.get_attribute('href')).rpartition('/')[2].partition('.html')[0] for link in links]
    assert SEARCHES[words] & set(found[:FIRST_RESULTS]), found[:10]


def test_each_parameter_has_an_anchor(browser: WebDriver, address: str) -> None:
    browser.get(f'{address}/parameters.html')
    headings = [heading.text.rstrip('#¶') for heading in browser.find_elements(By.CSS_SELECTOR, 'article h3')]
    assert {'max_size', 'acquire_timeout', 'on_event'} <= set(headings)
    for heading in headings:
        anchor = heading.replace('_', '-')
        browser.get(f'{address}/parameters.html#{anchor}')
        assert browser.execute_script('return document.querySelector(":target") !== null'), anchor


def test_copy_button(browser: WebDriver, address: str) -> None:
    browser.execute_cdp_cmd(
        'Browser.grantPermissions',
        {'origin': address, 'permissions': ['clipboardReadWrite', 'clipboardSanitizedWrite']},
    )
    browser.get(f'{address}/quickstart.html')
    sample = browser.find_element(By.CSS_SELECTOR, '.highlight-python')
    ActionChains(browser).move_to_element(sample).perform()
    sample.find_element(By.CSS_SELECTOR, 'button.copybtn').click()
    WebDriverWait(browser, PATIENCE).until(
        lambda _: 'success' in str(sample.find_element(By.CSS_SELECTOR, 'button.copybtn').get_attribute('class'))
    )
    copied = browser.execute_async_script('navigator.clipboard.readText().then(arguments[0])')
    assert copied.strip() == sample.find_element(By.TAG_NAME, 'pre').text.strip()
    assert not browser.find_elements(By.CSS_SELECTOR, '.highlight-text button.copybtn'), 'an output is not to be copied'


def test_the_switch_of_the_theme(browser: WebDriver, address: str) -> None:
    browser.get(f'{address}/parameters.html')
    seen: dict[str, tuple[str, tuple[str, ...]]] = {}
    for _ in range(3):
        theme = browser.execute_script('return document.body.dataset.theme')
        pictures = tuple(str(image.get_attribute('src')) for image in shown(browser, 'figure img'))
        seen[theme] = (browser.execute_script('return getComputedStyle(document.body).backgroundColor'), pictures)
        next(button for button in shown(browser, 'button.theme-toggle')).click()
    assert {'light', 'dark'} <= set(seen)
    for theme in ('light', 'dark'):
        _, pictures = seen[theme]
        assert len(pictures) == 2
        assert all(picture.endswith(f'.{theme}.svg') for picture in pictures)
    assert seen['light'][0] != seen['dark'][0]


@pytest.mark.parametrize('page', PAGES)
def test_pictures_are_dark_on_a_dark_page(browser: WebDriver, address: str, page: str) -> None:
    browser.get(f'{address}/{page}')
    browser.execute_script('document.body.dataset.theme = "dark"')
    for picture, bright in browser.execute_async_script(LOOK_OF_PICTURES):
        assert 0 < bright < MOST_INK, picture


@pytest.mark.parametrize('width', [WIDE, NARROW])
@pytest.mark.parametrize('page', PAGES)
def test_nothing_is_cut_off(browser: WebDriver, address: str, page: str, width: int) -> None:
    set_width(browser, width)
    browser.get(f'{address}/{page}')
    assert not browser.execute_script(CUT_CODE)
    assert width == NARROW or not browser.execute_script(WIDE_TABLES)
    assert not browser.execute_script(IS_WIDER_THAN_SCREEN)
