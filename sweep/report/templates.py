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

{% if embed %}
## Trials

<div id="trials-here"></div>

A row's first cell leads to all that is known of the trial; a click on a heading sorts. All rows and numbers:
[CSV](tables/trials.csv) · [Parquet](tables/trials.parquet)

### Settings and results

<div id="parallel-here"></div>

{{ parallel }}

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
{{ style }}
</style>
</head>
<body>
<nav><details><summary>Contents</summary>
{{ nav }}
</details></nav>
<main>
{{ body }}
</main>
<section id="one-trial" hidden></section>
{% if data %}
<script id="packed-trials" type="text/plain">{{ data }}</script>
{% endif %}
<script>
{{ script }}
</script>
</body>
</html>
"""
