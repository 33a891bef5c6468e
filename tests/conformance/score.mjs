// Runs the public HTTP cache suite through larder and fails unless every required and optimal case
// passes but those on the lists beside this file. A case on a list that passes, or that the suite
// does not have, is an error too. Everything is done twice, and both rounds must come out the same.
// Beside requirements the suite has questions; one that is on a list of answers must be a yes.
//
//   node score.mjs LARDER SUITE     the binary, and the folder of the installed suite

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { pathToFileURL } from 'node:url'

const HERE = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname)
const ROUNDS = 2
const DEADLINE_MS = 120_000

// What is put into [[site]], the cases that fail with it by right, and the
// questions whose answer is yes.
const CONFIGS = {
  'everything on': {
    site: {
      client_cache_control: 'honour',
      select_by_content_language: true,
      store_set_cookie: true,
      targeted: ['cdn-cache-control', 'surrogate-control']
    },
    fail: ['excluded.txt'],
    answers: ['honoured.txt']
  },
  defaults: { site: {}, fail: ['excluded.txt', 'defaults.txt'], answers: [] }
}

const [larder, suite] = process.argv.slice(2).map(file => path.resolve(file))
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'conformance-'))
const children = new Set()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  fs.rmSync(work, { force: true, recursive: true })
})
setTimeout(() => stop(`not done after ${DEADLINE_MS / 1000} s`), DEADLINE_MS).unref()

const cases = await readCases()
const origin = await startOrigin()
const rounds = []
for (let round = 1; round <= ROUNDS; round++) {
  const verdicts = {}
  await Promise.all(Object.entries(CONFIGS).map(async ([name, config]) => {
    verdicts[name] = await run(`${name} ${round}`.replaceAll(' ', '-'), config, origin.port)
  }))
  rounds.push(verdicts)
}
const problems = Object.entries(CONFIGS).flatMap(([name, config]) =>
  judge(name, config, rounds.map(verdicts => verdicts[name])))
for (const problem of problems) console.error(problem)
process.exit(problems.length === 0 ? 0 : 1)

// The cases that apply to a cache that is no browser, by id.
async function readCases () {
  const load = async file => (await import(pathToFileURL(path.join(suite, 'tests', file)))).default
  const groups = [...await load('index.mjs'), await load('surrogate-control.mjs')]
  const all = groups.flatMap(group => group.tests).filter(test => !test.browser_only)
  return new Map(all.map(test =>
    [test.id, { kind: test.kind ?? 'required', needs: test.depends_on ?? [] }]))
}

// The suite's own origin, on a free port of the loopback.
async function startOrigin () {
  const child = start(process.execPath,
    ['--no-warnings', '-r', path.join(HERE, 'loopback.cjs'), 'server/server.mjs'],
    { npm_config_pidfile: path.join(work, 'pid'), npm_config_port: '0', npm_config_protocol: 'http' })
  const line = await said(child, /^Listening on http:.*:(\d+)\/$/)
  return { port: Number(line[1]) }
}

// One larder with a fresh store, the suite's client through it, and what became of each case.
async function run (name, config, port) {
  const file = path.join(work, `${name}.toml`)
  fs.writeFileSync(file, toml(path.join(work, name), config.site, port))
  const proxy = start(larder, ['serve', '--config', file], {})
  let front
  await said(proxy, /^ready$/, line => { front ??= /^listening on (http:.*)$/.exec(line)?.[1] })
  const client = start(process.execPath, ['--no-warnings', 'cli.mjs'],
    { npm_config_base: front, npm_config_id: '', npm_package_config_base: '', npm_package_config_id: '' })
  const results = JSON.parse(await everything(client))
  proxy.kill('SIGTERM')
  await once(proxy, 'exit')
  return verdicts(results)
}

function toml (store, site, port) {
  const keys = Object.entries(site).map(([key, value]) => `${key} = ${JSON.stringify(value)}`)
  return `
[server]
http = ["127.0.0.1:0"]
[cache]
dir = ${JSON.stringify(store)}
disk_bytes_max = "256MiB"
[admin]
listen = ""
[log]
level = "warn"
[upstream.main]
backends = ["http://127.0.0.1:${port}"]
[[site]]
hosts = ["*"]
upstream = "main"
${keys.join('\n')}
`
}

// A case has passed when it did and all that it builds on has.
function verdicts (results) {
  const passed = id => results[id] === true && cases.get(id).needs.every(passed)
  const why = id => {
    if (results[id] === undefined) return 'was not run'
    if (results[id] !== true) return String(results[id][1])
    return `builds on ${cases.get(id).needs.filter(need => !passed(need)).join(', ')}`
  }
  return new Map([...cases.keys()].sort().map(id => [id, passed(id) ? true : why(id)]))
}

// Prints the score of a configuration and returns what is wrong with it.
function judge (name, config, rounds) {
  const excluded = new Set(config.fail.flatMap(readList))
  const [verdicts] = rounds
  const of = kind => [...verdicts].filter(([id]) => cases.get(id).kind === kind && !excluded.has(id))
  const score = kind => `${of(kind).filter(([, how]) => how === true).length}/${of(kind).length}`
  const checks = of('check').filter(([, how]) => how === true).length
  console.log(`conformance, ${name}: required ${score('required')}, optimal ${score('optimal')}, ` +
    `excluded ${excluded.size}; of ${of('check').length} questions of behaviour ${checks} yes`)

  const problems = []
  for (const [id, how] of verdicts) {
    if (cases.get(id).kind !== 'check' && !excluded.has(id) && how !== true) {
      problems.push(`${name}: ${id} fails: ${how}`)
    }
    for (const other of rounds.slice(1)) {
      // Messages quote dates and random paths, so only the verdicts can be the same.
      if ((other.get(id) === true) !== (how === true)) problems.push(`${name}: ${id} differs from round to round`)
    }
  }
  for (const id of excluded) {
    if (!cases.has(id)) problems.push(`${name}: ${id} is excluded, but there is no such case`)
    else if (cases.get(id).kind === 'check') problems.push(`${name}: ${id} is excluded, but it need not pass`)
    else if (verdicts.get(id) === true) problems.push(`${name}: ${id} is excluded, but it passes`)
  }
  for (const id of config.answers.flatMap(readList)) {
    if (cases.get(id)?.kind !== 'check') problems.push(`${name}: there is no question ${id}`)
    else if (verdicts.get(id) !== true) problems.push(`${name}: ${id} is no: ${verdicts.get(id)}`)
  }
  return problems
}

// A list has ids at the margin, and behind each group of them, indented, the reason. # is a comment.
function readList (file) {
  const ids = []
  let unexplained = []
  for (const line of fs.readFileSync(path.join(HERE, file), 'utf8').split('\n')) {
    if (line.trim() === '' || line.startsWith('#')) continue
    if (/^\s/.test(line)) {
      unexplained = []
    } else {
      if (ids.includes(line)) stop(`${file}: ${line} is there twice`)
      ids.push(line)
      unexplained.push(line)
    }
  }
  if (unexplained.length > 0) stop(`${file}: no reason for ${unexplained.join(', ')}`)
  return ids
}

function start (program, words, env) {
  const child = spawn(program, words,
    { cwd: suite, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
  children.add(child)
  child.on('error', error => stop(`${program}: ${error.message}`))
  child.on('exit', () => children.delete(child))
  return child
}

// Waits for a line of a child's output, and reads the rest so that its pipe never fills.
function said (child, pattern, each = () => {}) {
  return new Promise(resolve => {
    child.on('exit', code => stop(`${child.spawnfile} ended early with ${code}`, resolve))
    readline.createInterface({ input: child.stdout }).on('line', line => {
      each(line)
      const found = pattern.exec(line)
      if (found) {
        child.removeAllListeners('exit')
        child.on('exit', () => children.delete(child))
        resolve(found)
      }
    })
  })
}

async function everything (child) {
  let text = ''
  for await (const piece of child.stdout) text += piece
  return text
}

function stop (why) {
  console.error(`conformance: ${why}`)
  process.exit(1)
}
