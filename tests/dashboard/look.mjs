// Looks at the dashboard of a running larder as a person would, and fails when it is not what it should
// be: an error on the console, a figure that does not move under load, a purge that does not purge.
//
//   node look.mjs LARDER DRIVER PICTURES     the binary, the folder of playwright-core, where pictures go

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import http from 'node:http'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { pathToFileURL } from 'node:url'

const DEADLINE_MS = 120_000
const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium'

const [larder, driver, pictures] = process.argv.slice(2).map(file => path.resolve(file))
const { chromium } = (await import(pathToFileURL(path.join(driver, 'index.mjs')))).default
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'dashboard-'))
const children = new Set()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  fs.rmSync(work, { force: true, recursive: true })
})
setTimeout(() => stop(`not done after ${DEADLINE_MS / 1000} s`), DEADLINE_MS).unref()
fs.mkdirSync(pictures, { recursive: true })

const origin = await startOrigin()
const open = await serve('open', '')
fs.writeFileSync(path.join(work, 'token'), 's3cret\n')
const closed = await serve('closed', `token_file = ${JSON.stringify(path.join(work, 'token'))}`)

// Debian's chromium refuses its sandbox to root, and there is nothing here but our own page.
const browser = await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox'] })
const scenes = [
  ['the page loads and its figures move under load', moves],
  ['a purge from the form empties the entry', purges],
  ['explain tells what is stored and why not', explains],
  ['tabs, filter and pause work by keyboard', keys],
  ['a larder with a token asks for it', signsIn],
  ['a phone shows it all without scrolling sideways', phone],
  ['another page may not purge', strangers]
]
let failed = 0
for (const [name, scene] of scenes) {
  const problems = []
  try {
    await scene(problems)
    assert.deepEqual(problems, [])
    console.log(`ok      ${name}`)
  } catch (error) {
    failed += 1
    console.error(`FAILED  ${name}: ${error.message}`)
  }
}
await browser.close()
console.log(`${scenes.length - failed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)

// --- Scenes

async function moves (problems) {
  const page = await show(open, problems, { colorScheme: 'light' })
  const before = await counted(page, '#requests-all')
  await load(open, 3000)
  await page.waitForFunction(was => Number(document.querySelector('#requests-all').textContent.replaceAll(',', '')) > was + 200, before)
  await page.waitForFunction(() => parseFloat(document.querySelector('#hit-ratio').textContent) > 50)
  for (const place of ['ratio', 'rate', 'bytes', 'curve']) {
    assert.ok(await drawn(page, `#${place}-chart canvas`), `${place} is drawn`)
  }
  assert.match(await page.textContent('#top tbody'), /scene\.test\/often/)
  assert.match(await page.textContent('#origins tbody'), new RegExp(`:${origin.port}up`))
  assert.equal(await page.locator('#curve tbody tr').count(), 4)
  assert.match(await page.textContent('#latency tbody'), /hit/)
  await picture(page, 'light')
  await page.emulateMedia({ colorScheme: 'dark' })
  await page.waitForTimeout(1200)
  await picture(page, 'dark')
  await page.context().close()
}

async function purges (problems) {
  const page = await show(open, problems)
  await get(open, '/often')
  assert.match((await get(open, '/often')).status, /hit/)
  await page.fill('#purge-items', 'http://scene.test/often')
  await page.click('#purge button')
  await page.waitForSelector('#purge-result:has-text("receipt p-")')
  assert.match((await get(open, '/often')).status, /uri-miss/)
  const receipt = /p-\d+/.exec(await page.textContent('#purge-result'))[0]
  await page.waitForSelector(`#purges tbody:has-text("${receipt}")`)
  await page.fill('#purge-items', 'nonsense')
  // The browser's console tells of refusals too.
  problems.expected = /400/
  await page.click('#purge button')
  await page.waitForSelector('#purge-result.bad')
  await page.context().close()
}

async function explains (problems) {
  const page = await show(open, problems)
  await get(open, '/often')
  const asked = async url => {
    await page.fill('#explain-url', url)
    await page.click('#explain button')
    await page.waitForSelector('#explain-result dl')
    return page.textContent('#explain-result dl')
  }
  assert.match(await asked('http://scene.test/often'), /hit/)
  await page.check('#explain-fetch')
  await page.evaluate(() => document.querySelector('#explain-result').replaceChildren())
  assert.match(await asked('http://scene.test/private'), /private/)
  await page.locator('#explain').scrollIntoViewIfNeeded()
  await picture(page, 'explain')
  await page.context().close()
}

async function keys (problems) {
  const page = await show(open, problems)
  for (let n = 0; n < 3; n++) await get(open, '/private')
  await page.focus('#tab-requests')
  await page.keyboard.press('ArrowLeft')
  assert.equal(await page.getAttribute('#tab-not_cached', 'aria-selected'), 'true')
  await page.waitForSelector('#top tbody:has-text("private")')
  assert.doesNotMatch(await page.textContent('#top tbody'), /often/)
  await page.keyboard.press('Home')
  await page.focus('#filter')
  await page.keyboard.type('oft')
  await page.waitForFunction(() => !document.querySelector('#top tbody').textContent.includes('/private'))
  assert.match(await page.textContent('#top tbody'), /often/)
  await page.focus('#pause')
  await page.keyboard.press('Enter')
  assert.equal(await page.textContent('#state'), 'Paused')
  const paused = await counted(page, '#requests-all')
  await get(open, '/often')
  await page.waitForTimeout(1500)
  assert.equal(await counted(page, '#requests-all'), paused)
  await page.keyboard.press('Enter')
  await page.waitForFunction(was => Number(document.querySelector('#requests-all').textContent.replaceAll(',', '')) > was, paused)
  // Everything that can be used is reached by Tab, and shows that it is.
  const reached = new Set()
  await page.evaluate(() => document.activeElement.blur())
  for (let n = 0; n < 60; n++) {
    await page.keyboard.press('Tab')
    reached.add(await page.evaluate(() => document.activeElement.id))
  }
  for (const id of ['pause', 'filter', 'purge-kind', 'purge-items', 'purge-soft', 'explain-url', 'explain-headers']) {
    assert.ok(reached.has(id), `${id} is reached`)
  }
  await page.context().close()
}

async function signsIn (problems) {
  problems.expected = /401/
  const context = await browser.newContext()
  const page = await watched(context, problems)
  await page.goto(closed.admin)
  await page.waitForSelector('#sign-in:visible')
  assert.equal(await page.isVisible('main'), false)
  await page.fill('#token', 'wrong')
  await page.keyboard.press('Enter')
  await page.waitForSelector('#sign-in-trouble:has-text("not the token")')
  await page.fill('#token', 's3cret')
  await page.keyboard.press('Enter')
  await page.waitForSelector('main:visible')
  await page.waitForSelector('#state:has-text("Up")')
  await context.close()
}

async function phone (problems) {
  const page = await show(open, problems, {
    colorScheme: 'dark', viewport: { width: 375, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true
  })
  await load(open, 500)
  await page.waitForTimeout(2500)
  const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
  assert.ok(wide <= screen, `${wide} on ${screen}`)
  for (const button of await page.locator('#main button:visible').all()) {
    const box = await button.boundingBox()
    assert.ok(box.height >= 24, 'a button can be touched')
  }
  await picture(page, 'phone')
  await page.context().close()
}

async function strangers () {
  const context = await browser.newContext()
  const page = await context.newPage()
  await page.goto(`http://127.0.0.1:${origin.port}/page`)
  await get(open, '/often')
  const outcome = await page.evaluate(async admin => {
    const tried = await fetch(`${admin}/purge`, { method: 'POST', body: '{"all":true}', mode: 'no-cors' })
    const read = await fetch(`${admin}/live`).then(() => 'read', () => 'not read')
    return [tried.type, read]
  }, open.admin)
  assert.deepEqual(outcome, ['opaque', 'not read'])
  assert.match((await get(open, '/often')).status, /hit/)
  await context.close()
}

// --- Tools

async function show (at, problems, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await watched(context, problems)
  await page.goto(at.admin)
  await page.waitForSelector('#state:has-text("Up")')
  return page
}

async function watched (context, problems) {
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  page.on('console', message => {
    const bad = ['error', 'warning'].includes(message.type())
    if (bad && !problems.expected?.test(message.text())) problems.push(message.text())
  })
  page.on('pageerror', error => problems.push(error.stack))
  page.on('request', request => {
    if (!request.url().startsWith('http://127.0.0.1:')) problems.push(`asked for ${request.url()}`)
  })
  return page
}

async function counted (page, selector) {
  return Number((await page.textContent(selector)).replaceAll(',', ''))
}

// Is there more than one colour on it?
async function drawn (page, selector) {
  return page.evaluate(selector => {
    const canvas = document.querySelector(selector)
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    const colours = new Set()
    for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200) colours.add(data.slice(at, at + 3).join())
    return colours.size > 2
  }, selector)
}

async function picture (page, name) {
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true })
}

function get (at, target) {
  return new Promise((resolve, reject) => {
    const request = http.get(at.front + target, { headers: { Host: 'scene.test' }, agent: at.agent }, response => {
      response.resume()
      response.on('end', () => resolve({ code: response.statusCode, status: response.headers['cache-status'] ?? '' }))
    })
    request.on('error', reject)
  })
}

// A few hundred requests a second: most for a few targets, some private, some new.
async function load (at, milliseconds) {
  const until = Date.now() + milliseconds
  let number = 0
  const worker = async () => {
    while (Date.now() < until) {
      number += 1
      const target = number % 20 === 0 ? `/new/${number}` : number % 9 === 0 ? '/private' : number % 3 === 0 ? `/page/${number % 30}` : '/often'
      await get(at, target)
    }
  }
  await Promise.all([worker(), worker()])
}

async function startOrigin () {
  const server = http.createServer((request, response) => {
    const cacheable = !request.url.startsWith('/private')
    response.setHeader('Cache-Control', cacheable ? 'max-age=600' : 'private')
    response.setHeader('Content-Type', request.url === '/page' ? 'text/html' : 'text/plain')
    setTimeout(() => response.end('x'.repeat(200 + 37 * request.url.length)), 3)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { port: server.address().port }
}

async function serve (name, admin) {
  const file = path.join(work, `${name}.toml`)
  fs.writeFileSync(file, `
[server]
http = ["127.0.0.1:0"]
workers = 1
[cache]
dir = ${JSON.stringify(path.join(work, name))}
disk_bytes_max = "256MiB"
[admin]
listen = "127.0.0.1:0"
${admin}
[log]
access = "off"
level = "warn"
[upstream.main]
backends = ["http://127.0.0.1:${origin.port}"]
idle_timeout = "2s"
[[site]]
hosts = ["*"]
upstream = "main"
`)
  const child = spawn(larder, ['serve', '--config', file], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.add(child)
  const at = { agent: new http.Agent({ keepAlive: true }) }
  for await (const line of readline.createInterface({ input: child.stdout })) {
    at.front ??= /^listening on (http:.*)$/.exec(line)?.[1]
    at.admin ??= /^admin on (http:.*)$/.exec(line)?.[1]
    if (line === 'ready') return at
  }
  return stop(`${name} did not start`)
}

function stop (why) {
  console.error(`FAILED: ${why}`)
  process.exit(1)
}
