// SPDX-License-Identifier: Apache-2.0
//
// The npm packages `ollama` and `openai` against a server; serving_sessions_oracle.py starts it and runs this:
//   node clients.mjs URL MODEL     MODEL: the bundled one. Prints a line for each thing that is not as it should be.
import { Ollama } from 'ollama'
import OpenAI from 'openai'

const [url, model] = process.argv.slice(2)
const ollama = new Ollama({ host: url })
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
const options = { temperature: 0 }
const check = (what, good, shown = '') => {
  if (!good) console.log(`FAILED: npm: ${what} ${JSON.stringify(shown)}`)
}
const refusal = async (call) => call().then(() => undefined, (error) => error)

const names = (await ollama.list()).models.map((one) => one.name)
check('list', names.includes(model), names)
check('show', (await ollama.show({ model })).capabilities.includes('completion'))

const whole = await ollama.generate({ model, prompt: '12 + 345 =', raw: true, options })
check('generate', whole.response === ' 357' && whole.done_reason === 'stop' && whole.eval_count > 0, whole)
let text = ''
let last
for await (const part of await ollama.generate({ model, prompt: '12 + 345 =', raw: true, options, stream: true })) {
  text += part.response
  last = part
}
check('generate in a stream', text === ' 357' && last.done, { text, last })
const messages = [{ role: 'user', content: '12 + 34 =' }]
const same = { temperature: 0, num_predict: 8 }
const chat = await ollama.chat({ model, messages, options: same })
text = ''
for await (const part of await ollama.chat({ model, messages, options: same, stream: true })) text += part.message.content
check('chat, whole and in a stream', chat.message.role === 'assistant' && text === chat.message.content, { chat, text })

const endless = { model, prompt: 'the ', raw: true, options: { temperature: 8, top_k: 0, top_p: 1 }, stream: true }
const stream = await ollama.generate(endless)
const stopped = await refusal(async () => {
  for await (const _ of stream) stream.abort()
})
// Unless all of it had come before.
check('abort in mid-stream', stopped === undefined || stopped.name === 'AbortError', stopped)

const prompts = Array.from({ length: 64 }, (_, i) => `${i} + 30 =`)
const ask = async (prompt) => (await ollama.generate({ model, prompt, raw: true, options })).response
const together = await Promise.all(prompts.map(ask))
const some = [0, 17, 63]
for (const i of some) check('64 at once are as alone', together[i] === (await ask(prompts[i])), [i, together[i]])

check('a model that is not there', (await refusal(() => ollama.generate({ model: 'none', prompt: 'x' })))?.status_code === 404)
check('an embedding of what writes', (await refusal(() => ollama.embed({ model, input: 'x' })))?.status_code === 400)

const completion = await openai.completions.create({ model: 'plain', prompt: '12 + 345 =', temperature: 0 })
check('completions', completion.choices[0].text === ' 357' && completion.usage.completion_tokens > 0, completion)
text = ''
let usage
const parts = await openai.chat.completions.create({ model, messages, temperature: 0, max_tokens: 8, stream: true, stream_options: { include_usage: true } })
for await (const part of parts) {
  text += part.choices[0]?.delta?.content ?? ''
  usage = part.usage ?? usage
}
const answer = await openai.chat.completions.create({ model, messages, temperature: 0, max_tokens: 8 })
check('chat completions, whole and in a stream', text === answer.choices[0].message.content && usage.prompt_tokens > 0, { text, answer })
check('a model of /v1 that is not there', (await refusal(() => openai.models.retrieve('none')))?.status === 404)
check('refused by /v1', (await refusal(() => openai.chat.completions.create({ model, messages, temperature: -1 })))?.status === 400)
console.log('npm: done')
