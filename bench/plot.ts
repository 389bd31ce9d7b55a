import type { Figure } from './figures.ts'
import { short } from './figures.ts'

/** Values by size. */
export interface Line {
  readonly name: string
  readonly points: readonly (readonly [number, number])[]
}

const width = 720
const barHeight = 26
const labelWidth = 190
const colors = ['#2563eb', '#dc2626', '#059669', '#d97706']

/** A bar for each figure, with a whisker from the least round to the most. */
export function barPlot(title: string, figures: readonly Figure[]): string {
  const most = Math.max(...figures.map((figure) => figure.most))
  const scale = (width - labelWidth - 70) / most
  const bars = figures.map(({ subject, value, least, most: highest }, index) => {
    const y = 44 + index * barHeight
    const color = subject.startsWith('hub') ? colors[0]! : '#94a3b8'
    const middle = y + 9
    return [
      text(labelWidth - 8, y + 13, subject, 'end'),
      `<rect x="${labelWidth}" y="${y}" width="${(value * scale).toFixed(1)}" height="18" fill="${color}"/>`,
      stroke(labelWidth + least * scale, middle, labelWidth + highest * scale, middle, '#0f172a'),
      text(labelWidth + highest * scale + 6, y + 13, short(value)),
    ].join('')
  })
  return svg(title, 56 + figures.length * barHeight, bars)
}

/** Lines over sizes that grow by factors. */
export function linePlot(title: string, lines: readonly Line[]): string {
  const [left, right, top, bottom] = [60, width - 90, 50, 300]
  const sizes = [...new Set(lines.flatMap(({ points }) => points.map(([size]) => size)))].toSorted((a, b) => a - b)
  const most = Math.max(...lines.flatMap(({ points }) => points.map(([, value]) => value)))
  const [low, high] = [Math.log(sizes[0]!), Math.log(sizes.at(-1)!)]
  const x = (size: number) => left + ((Math.log(size) - low) / (high - low)) * (right - left)
  const y = (value: number) => bottom - (value / most) * (bottom - top)
  const drawn = lines.map(({ name, points }, index) => {
    const color = colors[index % colors.length]!
    const path = points.map(([size, value]) => `${x(size).toFixed(1)},${y(value).toFixed(1)}`).join(' ')
    const dots = points.map(
      ([size, value]) => `<circle cx="${x(size).toFixed(1)}" cy="${y(value).toFixed(1)}" r="3" fill="${color}"/>`,
    )
    const [, last] = points.at(-1)!
    const label = text(right + 8, y(last) + 4, name)
    return `<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"/>${dots.join('')}${label}`
  })
  const marks = [0, 0.5, 1].map((share) => {
    const line = stroke(left, y(share * most), right, y(share * most), '#e2e8f0')
    return line + text(left - 8, y(share * most) + 4, short(share * most), 'end')
  })
  const names = sizes.map((size) => text(x(size), bottom + 18, size.toLocaleString('en'), 'middle'))
  return svg(title, bottom + 34, [...marks, ...names, ...drawn])
}

const text = (x: number, y: number, words: string, anchor = 'start'): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>`

const stroke = (fromX: number, fromY: number, toX: number, toY: number, color: string): string =>
  `<line x1="${fromX.toFixed(1)}" y1="${fromY.toFixed(1)}" x2="${toX.toFixed(1)}" y2="${toY.toFixed(1)}" stroke="${color}"/>`

const svg = (title: string, height: number, parts: readonly string[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" fill="#0f172a">
<rect width="${width}" height="${height}" fill="white"/>
${text(16, 24, title)}
${parts.join('\n')}
</svg>
`
