"""The report's two templates: Markdown for the text, a page around it for the browser."""

REPORT = """\
# {{ title }}

{{ summary }}

{% for answer in answers %}
## {{ answer.question }}

**{{ escape(answer.sentences[0]) }}** {{ escape(" ".join(answer.sentences[1:])) }}

{% if answer.figure %}
![{{ answer.figure.title }}]({{ image(answer.figure) }})

{{ answer.figure.caption }} {{ figure_files(answer.figure) }}

{% endif %}
{% endfor %}
## What was run

{% if progress %}
{{ table(progress) }}

{% endif %}
{% for line in findings %}
- {{ line }}
{% endfor %}
{% if warnings %}

Not used:

{% for line in warnings %}
- {{ line }}
{% endfor %}
{% endif %}

{% for section in sections %}
## {{ section.heading }}

{% for text in section.texts %}
{{ text }}

{% endfor %}
{% for table_ in section.tables %}
### {{ table_.title }}

{{ table(table_) }}

{{ files(table_) }}

{% endfor %}
{% for figure in section.figures %}
### {{ figure.title }}

![{{ figure.title }}]({{ image(figure) }})

{{ figure.caption }} {{ figure_files(figure) }}

{% endfor %}
{% endfor %}
{% for heading, group in samples | groupby("heading") %}
## {{ heading }}

{{ group[0].about }}

{% for sample in group %}
### {{ sample.title }}

```
{{ sample.text }}
```

{% endfor %}
{% endfor %}
"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #1c1c1c;
  background: #fff; max-width: 76rem; margin: 2rem auto; padding: 0 1.2rem; }
h1, h2, h3 { line-height: 1.25; margin: 1.8em 0 .5em; }
h2 { border-bottom: 1px solid #d5d5d5; padding-bottom: .2em; }
h3 { font-size: 1.05rem; }
table { border-collapse: collapse; font-size: .875rem; display: block; overflow-x: auto; max-height: 40rem;
  font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .25rem .65rem; border-bottom: 1px solid #e4e4e4; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #777; position: sticky; top: 0; background: #fff; }
tbody tr:hover { background: #f4f6f8; }
img { max-width: 100%; height: auto; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .85rem; }
p, li { max-width: 52rem; }
nav ul { columns: 2; padding-left: 1.2rem; }
a { color: #0b57a4; }
@media (prefers-color-scheme: dark) {
  body, thead th { background: #16181b; color: #e2e2e2; }
  img { background: #fff; }
  pre { background: #22262b; }
  tbody tr:hover { background: #22262b; }
  th, td, h2 { border-color: #3a3f45; }
  a { color: #7db8f0; }
}
</style>
</head>
<body>
{{ nav }}
{{ body }}
</body>
</html>
"""
