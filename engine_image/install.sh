#!/bin/sh
# Installs Holdfast into a new virtual environment without pip: install.sh FOLDER REQUIREMENTS WHEELS
# REQUIREMENTS is a file of pinned versions with their hashes, WHEELS a folder with Holdfast's own wheel.
set -eu
folder=$1 requirements=$2 wheels=$3
install() { python3 -m pip --python "$folder/bin/python3" install --no-cache-dir --no-deps --only-binary :all: "$@"; }

python3 -m venv --without-pip "$folder"
install --require-hashes --requirement "$requirements"
install --no-index "$wheels"/holdfast-*.whl
"$folder/bin/python3" -m holdfast_engine --help > /dev/null
