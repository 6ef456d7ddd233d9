#!/usr/bin/env bash
# Looks at a report in a headless Chromium: on a desktop, on phones, in the dark, on paper.
#
#   tools/dev/report_screenshots.sh REPORT.html FOLDER     writes desktop.png, dark.png, phone.png (light and dark), paper.pdf
#
# Nothing else in the project needs a browser: apt-get install chromium. HEIGHT (pixels, default 1400) limits the pictures;
# with optipng in the path they are made smaller.
set -euo pipefail

readonly REPORT="${1:?usage: report_screenshots.sh REPORT.html FOLDER}"
readonly FOLDER="${2:?usage: report_screenshots.sh REPORT.html FOLDER}"
readonly HEIGHT="${HEIGHT:-1400}"

browser="$(command -v chromium || command -v chromium-browser || command -v google-chrome)" ||
  { echo "report_screenshots: no Chromium; apt-get install chromium" >&2; exit 1; }
profile="$(mktemp -d)"
trap 'rm -rf "$profile"' EXIT
address="file://$(realpath "$REPORT")"
mkdir -p "$FOLDER"

look() {
  "$browser" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
    --force-device-scale-factor=1 --allow-file-access-from-files --virtual-time-budget=2000 "$@" >/dev/null 2>&1
}
# A window is at least 500 pixels wide, so a phone is a frame of 390 pixels in a page of its own.
frame() {
  printf '<iframe src="%s" style="border:0;width:390px;height:%spx;color-scheme:%s"></iframe>' "$address" "$HEIGHT" "$1"
}
phones="$profile/phones.html"
printf '<!doctype html><body style="margin:0;display:flex">%s%s' "$(frame light)" "$(frame dark)" >"$phones"

look --blink-settings=preferredColorScheme=1 --window-size=1280,"$HEIGHT" --screenshot="$FOLDER/desktop.png" "$address"
look --blink-settings=preferredColorScheme=0 --window-size=1280,"$HEIGHT" --screenshot="$FOLDER/dark.png" "$address"
look --window-size=780,"$HEIGHT" --screenshot="$FOLDER/phone.png" "file://$phones"
look --no-pdf-header-footer --print-to-pdf="$FOLDER/paper.pdf" "$address"
if command -v optipng >/dev/null; then optipng -quiet -o4 "$FOLDER"/{desktop,dark,phone}.png; fi
