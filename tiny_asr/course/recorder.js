// The browser's side of `recorder.py`: a microphone, a file picker, and a decoder for both.

function button(text, className = "") {
  const element = document.createElement("button");
  element.textContent = text;
  element.className = `jupyter-widgets jupyter-button widget-button ${className}`;
  return element;
}

// Why there is no microphone, and what to do; browsers say it in words for programmers.
function reason(error) {
  if (!navigator.mediaDevices)
    return "This page may not record: browsers allow it on https:// and on this machine only.";
  if (error.name === "NotFoundError") return "There is no microphone.";
  if (error.name === "NotAllowedError")
    return "The microphone was refused: allow it beside the page's address. VS Code never allows it.";
  return `The microphone does not work (${error.message}).`;
}

function render({ model, el }) {
  el.classList.add("tiny-asr-recorder");
  const record = button("● Record", "mod-primary");
  const choose = button("Choose a file");
  const picker = Object.assign(document.createElement("input"), {
    type: "file", accept: "audio/*,video/*", hidden: true,
  });
  const meter = Object.assign(document.createElement("meter"), { max: 0.3, hidden: true });
  meter.setAttribute("aria-label", "loudness");
  // What was sent, to listen to: it stays in the page, and is in no notebook that is saved.
  const player = Object.assign(document.createElement("audio"), { controls: true, hidden: true });
  player.setAttribute("aria-label", "your clip");
  const status = document.createElement("div");
  status.setAttribute("role", "status");
  el.append(record, choose, picker, meter, player, status);

  const [rate, longest] = [model.get("sampling_rate"), model.get("max_seconds")];
  const say = (text) => { status.textContent = text; };
  const showStatus = () => say(model.get("status"));
  model.on("change:status", showStatus);
  showStatus();

  let finish = null; // ends the recording that is going on

  // Any sound that the browser can decode, to the kernel: mono samples at `rate`.
  async function send(blob, source, recorded) {
    let sound;
    try {
      sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());
    } catch {
      return say(`${source} cannot be read; expected sound, such as WAV, MP3, M4A, FLAC or Ogg.`);
    }
    if (sound.duration > longest && !recorded)
      return say(`${source} lasts ${sound.duration.toFixed(1)} s; expected at most ${longest} s: ` +
        "choose a shorter one.");
    const channels = sound.numberOfChannels;
    const mono = new Float32Array(Math.min(sound.length, longest * rate));
    for (let channel = 0; channel < channels; channel++)
      sound.getChannelData(channel).subarray(0, mono.length)
        .forEach((value, i) => { mono[i] += value / channels; });
    say(`${source}: on its way to the notebook ...`);
    model.send({ source }, undefined, [mono.buffer]);
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(blob);
    player.hidden = false;
  }

  async function start() {
    record.disabled = true; // while the browser asks for permission
    let stream;
    try {
      // Made for calls, these two cost a recogniser words.
      const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false };
      stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      return say(`${reason(error)} Choose a file instead.`);
    } finally {
      record.disabled = false;
    }
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(analyser);
    const heard = new Float32Array(analyser.fftSize);
    const began = performance.now();
    const tick = setInterval(() => {
      const seconds = (performance.now() - began) / 1000;
      analyser.getFloatTimeDomainData(heard);
      meter.value = Math.hypot(...heard) / Math.sqrt(heard.length);
      say(`recording: ${seconds.toFixed(1)} s of ${longest} s at most`);
      if (seconds >= longest) finish();
    }, 100);

    const chunks = [];
    const recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => chunks.push(event.data);
    recorder.onstop = () => send(new Blob(chunks, { type: recorder.mimeType }), "the microphone", true);
    recorder.start();
    record.textContent = "■ Stop";
    meter.hidden = false;
    finish = () => {
      finish = null;
      clearInterval(tick);
      recorder.stop();
      stream.getTracks().forEach((track) => track.stop()); // the browser's red dot goes out
      context.close();
      record.textContent = "● Record again";
      meter.hidden = true;
    };
  }

  record.onclick = () => (finish ? finish() : start());
  choose.onclick = () => picker.click();
  picker.onchange = () => {
    const [file] = picker.files;
    if (file) send(file, file.name, false);
    picker.value = ""; // the same file may be chosen again
  };
  return () => {
    model.off("change:status", showStatus);
    URL.revokeObjectURL(player.src);
    finish?.();
  };
}

export default { render };
