"""What every process of Holdfast tells of itself, in the same form: log lines, and spans of requests.

Beside `holdfast.mirror`: the operator and both images use it, and it knows nothing of them. What is switched off costs
nothing and imports nothing.
"""
